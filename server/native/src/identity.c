#include "identity.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <string.h>

static bool add(struct pn_bytes *fields, const char *name, size_t name_size, const void *value, int size)
{
    return size < 0 || (bytes_append_field(fields, name, name_size) && bytes_append_field(fields, value, (size_t)size));
}

static bool add_common_name(struct pn_bytes *fields, X509 *certificate)
{
    static const char name[] = "x509_common_name";
    X509_NAME *subject = X509_get_subject_name(certificate);
    int place = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (place < 0)
        return true;
    unsigned char *text = NULL;
    int size = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, place)));
    bool fine = add(fields, name, sizeof name - 1, text, size);
    OPENSSL_free(text);
    return fine;
}

static bool add_alternative(struct pn_bytes *fields, const GENERAL_NAME *alternative)
{
    static const char name[] = "x509_subject_alternative_name";
    char address[INET6_ADDRSTRLEN];
    const ASN1_STRING *text;
    switch (alternative->type) {
    case GEN_DNS:
    case GEN_URI:
    case GEN_EMAIL:
        text = alternative->d.ia5;
        return add(fields, name, sizeof name - 1, ASN1_STRING_get0_data(text), ASN1_STRING_length(text));
    case GEN_IPADD:
        text = alternative->d.iPAddress;
        int family = ASN1_STRING_length(text) == 4 ? AF_INET : AF_INET6;
        if (family == AF_INET6 && ASN1_STRING_length(text) != 16)
            return true;
        inet_ntop(family, ASN1_STRING_get0_data(text), address, sizeof address);
        return add(fields, name, sizeof name - 1, address, (int)strlen(address));
    default:
        return true;
    }
}

bool identity_fields(SSL *ssl, struct pn_bytes *fields)
{
    X509 *certificate = SSL_get1_peer_certificate(ssl);
    if (certificate == NULL)
        return true;
    bool fine = add_common_name(fields, certificate);
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; fine && i < sk_GENERAL_NAME_num(names); i++)
        fine = add_alternative(fields, sk_GENERAL_NAME_value(names, i));
    GENERAL_NAMES_free(names);
    X509_free(certificate);
    return fine;
}
