#include "grants.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bytes.h"
#include "call.h"

enum { BUCKETS = 1024 };

/* Before what is digested, so that no certificate passes for a token. */
static const uint8_t token_mark = 't', certificate_mark = 'c';

struct grant {
    struct grant *next;
    struct credential credential;
    uint64_t expires_unix_ns; /* UINT64_MAX: never */
    bool every_lane;
    size_t lanes_count;
    uint32_t lanes[];
};

static struct grant *grants[BUCKETS];
static size_t grants_count;
static EVP_MD *sha256;
static EVP_MD_CTX *digesting;

/* A lookup of the algorithm for each call would cost more than the rest. */
static bool prepare(void)
{
    if (!sha256)
        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!digesting)
        digesting = EVP_MD_CTX_new();
    return sha256 && digesting;
}

static bool digest(uint8_t mark, const uint8_t *bytes, size_t size, struct credential *credential)
{
    return prepare() && EVP_DigestInit_ex2(digesting, sha256, NULL) == 1 &&
           EVP_DigestUpdate(digesting, &mark, sizeof mark) == 1 && EVP_DigestUpdate(digesting, bytes, size) == 1 &&
           EVP_DigestFinal_ex(digesting, credential->digest, NULL) == 1;
}

/* How often a call has the header, and the value of the first. */
static unsigned find_tokens(const struct pn_call *call, struct pn_field *token)
{
    static const char header[] = "authorization";
    size_t size, place = 0;
    const uint8_t *fields = call_fields(call, &size);
    unsigned found = 0;
    struct pn_field name, value;
    while (field_next(fields, size, &place, &name) && field_next(fields, size, &place, &value))
        if (name.size == sizeof header - 1 && memcmp(name.data, header, name.size) == 0 && !found++)
            *token = value;
    return found;
}

bool credential_of(const struct pn_call *call, struct credential *credential)
{
    struct pn_field token = {NULL, 0};
    unsigned tokens = find_tokens(call, &token);
    if (tokens)
        return tokens == 1 && digest(token_mark, token.data, token.size, credential);
    size_t size;
    const uint8_t *identity = call_identity(call, &size);
    return size && digest(certificate_mark, identity, size, credential);
}

static struct grant **bucket_of(const struct credential *credential)
{
    uint32_t number;
    memcpy(&number, credential->digest, sizeof number);
    return &grants[number % BUCKETS];
}

static uint64_t unix_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static struct grant *find(const struct credential *credential)
{
    struct grant *grant = *bucket_of(credential);
    while (grant && CRYPTO_memcmp(grant->credential.digest, credential->digest, CREDENTIAL_BYTES) != 0)
        grant = grant->next;
    return grant;
}

const struct grant *grants_find(const struct credential *credential)
{
    const struct grant *grant = find(credential);
    if (grant && grant->expires_unix_ns != UINT64_MAX && unix_ns() >= grant->expires_unix_ns)
        return NULL;
    return grant;
}

bool grant_has(const struct grant *grant, uint32_t lane)
{
    for (size_t at = 0; !grant->every_lane && at < grant->lanes_count; at++)
        if (grant->lanes[at] == lane)
            return true;
    return grant->every_lane;
}

bool grant_has_every_lane(const struct grant *grant) { return grant->every_lane; }

const char *grants_add(const struct credential *credential, uint64_t expires_unix_ns, bool every_lane,
                       const uint8_t *lanes, size_t lanes_count)
{
    if (find(credential))
        return "the caller is known already";
    if (grants_count >= GRANTS_MAX)
        return "as many callers are known as may be";
    struct grant *grant = malloc(sizeof *grant + lanes_count * sizeof grant->lanes[0]);
    if (!grant)
        return "no memory for a caller";
    struct grant **bucket = bucket_of(credential);
    *grant = (struct grant){.next = *bucket,
                            .credential = *credential,
                            .expires_unix_ns = expires_unix_ns,
                            .every_lane = every_lane,
                            .lanes_count = lanes_count};
    if (lanes_count)
        memcpy(grant->lanes, lanes, lanes_count * sizeof grant->lanes[0]);
    *bucket = grant;
    grants_count++;
    return NULL;
}

void grants_clear(void)
{
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        while (grants[bucket]) {
            struct grant *grant = grants[bucket];
            grants[bucket] = grant->next;
            free(grant);
        }
    }
    grants_count = 0;
}

void grants_forget(void)
{
    grants_clear();
    EVP_MD_CTX_free(digesting);
    EVP_MD_free(sha256);
    digesting = NULL;
    sha256 = NULL;
}
