/* A stand-in for libnvidia-ml.so.1 that answers at once, for benchmarks: the cost that remains is the caller's.
 *
 *   EL_DRIVER_REFRESH_US=20000,25000   how often each device's counter moves (the last holds for all further ones)
 *   EL_DRIVER_BLOCK_US=200             every read sleeps for this long
 *   EL_DRIVER_BURN_NS=5000             every read keeps a processor busy for this long
 *
 * Each device refreshes at a phase of its own and draws about 300 W with 2 % of noise, counted in whole millijoules.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DEVICES = 8, SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3 };
enum { ENERGY = 83, POWER_INSTANT = 186, UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };

typedef int ret_t;
typedef struct device { uint64_t index, refresh_ns, phase_ns; } *device_t;
typedef union { unsigned int ui; unsigned long long ull; double d; } value_t;
typedef struct {
    unsigned int field_id, scope_id;
    long long timestamp, latency_us;
    int value_type;
    ret_t ret;
    value_t value;
} field_value_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2_t;

static struct device table[DEVICES];
static uint64_t block_ns, burn_ns;

static uint64_t hash(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t setting(const char *name) {
    const char *text = getenv(name);
    return text ? strtoull(text, 0, 10) : 0;
}

ret_t nvmlInit_v2(void) {
    const char *text = getenv("EL_DRIVER_REFRESH_US");
    uint64_t refresh_us = 100000;
    for (uint64_t i = 0; i < DEVICES; i++) {
        if (text && *text) {
            char *end;
            refresh_us = strtoull(text, &end, 10);
            text = *end == ',' ? end + 1 : end;
        }
        table[i].index = i;
        table[i].refresh_ns = (refresh_us ? refresh_us : 1) * 1000;
        table[i].phase_ns = hash(i) % table[i].refresh_ns;
    }
    block_ns = setting("EL_DRIVER_BLOCK_US") * 1000;
    burn_ns = setting("EL_DRIVER_BURN_NS");
    return SUCCESS;
}
ret_t nvmlInitWithFlags(unsigned int flags) { (void)flags; return nvmlInit_v2(); }
ret_t nvmlShutdown(void) { return SUCCESS; }

/* Millijoules at the last refresh. */
static unsigned long long read_mj(device_t d) {
    uint64_t now = now_ns();
    if (block_ns) {
        struct timespec t = { (time_t)(block_ns / 1000000000u), (long)(block_ns % 1000000000u) };
        nanosleep(&t, 0);
        now = now_ns();
    }
    if (burn_ns) {
        uint64_t end = now + burn_ns;
        while ((now = now_ns()) < end) {}
    }
    uint64_t refreshes = (now + d->phase_ns) / d->refresh_ns;
    uint64_t per_refresh_uj = d->refresh_ns * 3 / 10; /* 300 W */
    uint64_t noise_uj = hash(refreshes ^ (d->index << 56)) % (per_refresh_uj / 50 + 1);
    return (refreshes * per_refresh_uj + noise_uj) / 1000;
}

ret_t nvmlSystemGetDriverVersion(char *version, unsigned int length) { snprintf(version, length, "580.0"); return SUCCESS; }
ret_t nvmlDeviceGetCount_v2(unsigned int *count) { *count = DEVICES; return SUCCESS; }
ret_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, device_t *device) {
    if (index >= DEVICES) return INVALID_ARGUMENT;
    *device = &table[index];
    return SUCCESS;
}
ret_t nvmlDeviceGetName(device_t d, char *name, unsigned int length) {
    (void)d;
    snprintf(name, length, "bench");
    return SUCCESS;
}
ret_t nvmlDeviceGetUUID(device_t d, char *uuid, unsigned int length) {
    snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012d", (int)d->index);
    return SUCCESS;
}
ret_t nvmlDeviceGetEnforcedPowerLimit(device_t d, unsigned int *mw) { (void)d; *mw = 700000; return SUCCESS; }
ret_t nvmlDeviceGetMemoryInfo_v2(device_t d, memory_v2_t *memory) { (void)d; memory->total = 1ull << 36; return SUCCESS; }
ret_t nvmlDeviceGetMigMode(device_t d, unsigned int *current, unsigned int *pending) {
    (void)d;
    *current = *pending = 0;
    return SUCCESS;
}
ret_t nvmlDeviceGetPersistenceMode(device_t d, unsigned int *mode) { (void)d; *mode = 1; return SUCCESS; }
ret_t nvmlDeviceGetTotalEnergyConsumption(device_t d, unsigned long long *mj) { *mj = read_mj(d); return SUCCESS; }
ret_t nvmlDeviceGetPowerUsage(device_t d, unsigned int *mw) { (void)d; *mw = 300000; return SUCCESS; }
ret_t nvmlDeviceGetFieldValues(device_t d, int count, field_value_t *values) {
    for (int i = 0; i < count; i++) {
        field_value_t *v = &values[i];
        v->timestamp = 0;
        v->latency_us = 0;
        v->ret = SUCCESS;
        if (v->field_id == ENERGY && v->scope_id == 0) {
            v->value_type = UNSIGNED_LONG_LONG;
            v->value.ull = read_mj(d);
        } else if (v->field_id == POWER_INSTANT) {
            v->value_type = UNSIGNED_INT;
            v->value.ui = 300000;
        } else {
            v->ret = NOT_SUPPORTED;
        }
    }
    return SUCCESS;
}
