#include "routes.h"

#include <stdlib.h>
#include <string.h>

enum { MODEL_BUCKETS = 256 };

struct model {
    struct model *next;
    uint8_t *name;
    size_t name_size;
    size_t routes_count;
    struct route routes[];
};

static struct lane *lanes;
static struct model *models[MODEL_BUCKETS];

struct lane *routes_lanes(void) { return lanes; }

struct lane *routes_lane(uint32_t id)
{
    struct lane *lane = lanes;
    while (lane && lane->id != id)
        lane = lane->next;
    return lane;
}

const char *routes_add_lane(struct lane *lane)
{
    if (routes_lane(lane->id))
        return "the lane was added already";
    lane->next = lanes;
    lanes = lane;
    return NULL;
}

void routes_forget_lane(struct lane *lane)
{
    for (struct lane **at = &lanes; *at; at = &(*at)->next) {
        if (*at != lane)
            continue;
        *at = lane->next;
        break;
    }
    admissions_clear(&lane->admissions);
    free(lane);
}

static struct model **bucket_of(const uint8_t *name, size_t size)
{
    uint32_t hash = 2166136261U;
    for (size_t at = 0; at < size; at++)
        hash = (hash ^ name[at]) * 16777619U;
    return &models[hash % MODEL_BUCKETS];
}

/* Where the pointer to the model stands, or would. */
static struct model **find_model(const uint8_t *name, size_t size)
{
    struct model **at = bucket_of(name, size);
    while (*at && ((*at)->name_size != size || memcmp((*at)->name, name, size) != 0))
        at = &(*at)->next;
    return at;
}

static void free_model(struct model *model)
{
    free(model->name);
    free(model);
}

const char *routes_set_model(const uint8_t *name, size_t name_size, const struct route *routes, size_t count)
{
    struct model **at = find_model(name, name_size);
    if (*at) {
        struct model *old = *at;
        *at = old->next;
        free_model(old);
    }
    if (!count)
        return NULL;
    struct model *model = malloc(sizeof *model + count * sizeof model->routes[0]);
    uint8_t *copy = malloc(name_size + 1);
    if (!model || !copy) {
        free(model);
        free(copy);
        return "no memory for a model's routes";
    }
    memcpy(copy, name, name_size);
    at = bucket_of(name, name_size);
    *model = (struct model){.next = *at, .name = copy, .name_size = name_size, .routes_count = count};
    memcpy(model->routes, routes, count * sizeof *routes);
    *at = model;
    return NULL;
}

struct lane *routes_find(const uint8_t *name, size_t name_size, uint64_t version)
{
    const struct model *model = *find_model(name, name_size);
    for (size_t at = 0; model && at < model->routes_count; at++)
        if (model->routes[at].version == version)
            return routes_lane(model->routes[at].lane);
    return NULL;
}

void routes_clear(void)
{
    for (unsigned bucket = 0; bucket < MODEL_BUCKETS; bucket++) {
        while (models[bucket]) {
            struct model *model = models[bucket];
            models[bucket] = model->next;
            free_model(model);
        }
    }
    while (lanes)
        routes_forget_lane(lanes);
}
