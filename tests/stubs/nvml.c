/* A stand-in for libnvidia-ml.so.1 with the binary interface of the functions that energylens calls.
 *
 * It answers what the file `control`, beside the library itself, says at the moment of each call: one
 * `KEY VALUE` per line, keys such as
 *
 *   init_rc 9              nvmlInit_v2 returns NVML_ERROR_DRIVER_NOT_LOADED
 *   devices 2              number of GPUs
 *   0.energy_mj 123456     energy counter of GPU 0
 *   0.energy_rc 15         its return code
 *   0.power_mw 300000      power; 0.field_rc, 0.field_value_rc and 0.power_rc are the codes of the ways to it
 *   0.ramp_mw 250000       the counter also rises by itself at this power, in steps of 0.refresh_ms
 *   0.handle_rc 4          nvmlDeviceGetHandleByIndex_v2
 *   0.mig 1                partitioned
 *   0.name TEXT, 0.uuid TEXT
 *
 * and appends one line per driver call to the file `calls`. A file rather than the environment, so that
 * several copies of the library serve several tests in one process. Numbers are those of nvml.h.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3 };
enum { MAX_DEVICES = 16, VALUE_UNSIGNED_INT = 1, FIELD_POWER_AVERAGE = 185, FIELD_POWER_INSTANT = 186 };

typedef int ret_t;
typedef struct device { int index; } *device_t;
typedef union { double d; unsigned int ui; unsigned long ul; unsigned long long ull; long long sll; } value_t;
typedef struct {
    unsigned int field_id, scope_id;
    long long timestamp, latency_us;
    int value_type;
    ret_t ret;
    value_t value;
} field_value_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2_t;

static struct device table[MAX_DEVICES];

static void beside(char *path, size_t size, const char *file) {
    Dl_info info;
    path[0] = 0;
    if (!dladdr((void *)&table, &info) || !info.dli_fname) return;
    const char *slash = strrchr(info.dli_fname, '/');
    int length = slash ? (int)(slash - info.dli_fname) : 1;
    snprintf(path, size, "%.*s/%s", length, slash ? info.dli_fname : ".", file);
}

static int lookup(const char *key, char *value, size_t size) {
    char path[4096], line[512];
    beside(path, sizeof path, "control");
    FILE *f = fopen(path, "r");
    int found = 0;
    size_t n = strlen(key);
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, n) == 0 && line[n] == ' ') {
            line[strcspn(line, "\n")] = 0;
            snprintf(value, size, "%s", line + n + 1);
            found = 1;
        }
    }
    if (f) fclose(f);
    return found;
}

static unsigned long long number(const char *key, unsigned long long otherwise) {
    char value[512];
    return lookup(key, value, sizeof value) ? strtoull(value, 0, 10) : otherwise;
}

static unsigned long long of(device_t d, const char *what, unsigned long long otherwise) {
    char key[64];
    snprintf(key, sizeof key, "%d.%s", d->index, what);
    return number(key, otherwise);
}

static void text_of(device_t d, const char *what, const char *otherwise, char *out, unsigned int size) {
    char key[64], value[512];
    snprintf(key, sizeof key, "%d.%s", d->index, what);
    snprintf(out, size, "%s", lookup(key, value, sizeof value) ? value : otherwise);
}

static void called(const char *function) {
    char path[4096];
    beside(path, sizeof path, "calls");
    FILE *f = fopen(path, "a");
    if (f) {
        fprintf(f, "%s\n", function);
        fclose(f);
    }
}

ret_t nvmlInit_v2(void) { return (ret_t)number("init_rc", SUCCESS); }
ret_t nvmlInitWithFlags(unsigned int flags) { (void)flags; return nvmlInit_v2(); }
#ifndef WITHOUT_SHUTDOWN
ret_t nvmlShutdown(void) { return SUCCESS; }
#endif

ret_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    char value[512];
    snprintf(version, length, "%s", lookup("driver", value, sizeof value) ? value : "580.95.05");
    return SUCCESS;
}

ret_t nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = (unsigned int)number("devices", 1);
    return (ret_t)number("count_rc", SUCCESS);
}

ret_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, device_t *device) {
    if (index >= MAX_DEVICES) return INVALID_ARGUMENT;
    table[index].index = (int)index;
    *device = &table[index];
    return (ret_t)of(*device, "handle_rc", SUCCESS);
}

ret_t nvmlDeviceGetName(device_t d, char *name, unsigned int length) {
    text_of(d, "name", "NVIDIA H100 80GB HBM3", name, length);
    return SUCCESS;
}

ret_t nvmlDeviceGetUUID(device_t d, char *uuid, unsigned int length) {
    char otherwise[64];
    snprintf(otherwise, sizeof otherwise, "GPU-00000000-0000-0000-0000-%012d", d->index);
    text_of(d, "uuid", otherwise, uuid, length);
    return (ret_t)of(d, "uuid_rc", SUCCESS);
}

ret_t nvmlDeviceGetEnforcedPowerLimit(device_t d, unsigned int *limit_mw) {
    *limit_mw = (unsigned int)of(d, "limit_mw", 700000);
    return (ret_t)of(d, "limit_rc", SUCCESS);
}

ret_t nvmlDeviceGetMemoryInfo_v2(device_t d, memory_v2_t *memory) {
    memory->total = of(d, "memory_bytes", 85899345920ull);
    return SUCCESS;
}

ret_t nvmlDeviceGetMigMode(device_t d, unsigned int *current, unsigned int *pending) {
    *current = *pending = (unsigned int)of(d, "mig", 0);
    return SUCCESS;
}

ret_t nvmlDeviceGetTotalEnergyConsumption(device_t d, unsigned long long *energy_mj) {
    called("energy");
    unsigned long long ramp_mw = of(d, "ramp_mw", 0), refresh_ms = of(d, "refresh_ms", 100);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned long long ms = (unsigned long long)now.tv_sec * 1000 + (unsigned long long)now.tv_nsec / 1000000;
    if (refresh_ms) ms = ms / refresh_ms * refresh_ms;
    *energy_mj = of(d, "energy_mj", 0) + ramp_mw * ms / 1000;
    return (ret_t)of(d, "energy_rc", SUCCESS);
}

ret_t nvmlDeviceGetPowerUsage(device_t d, unsigned int *power_mw) {
    called("power");
    *power_mw = (unsigned int)of(d, "power_mw", 0);
    return (ret_t)of(d, "power_rc", SUCCESS);
}

ret_t nvmlDeviceGetFieldValues(device_t d, int count, field_value_t *values) {
    called("fields");
    for (int i = 0; i < count; i++) {
        int power = values[i].field_id == FIELD_POWER_INSTANT
            || (values[i].field_id == FIELD_POWER_AVERAGE && of(d, "average", 0));
        values[i].value_type = VALUE_UNSIGNED_INT;
        values[i].value.ui = (unsigned int)of(d, "power_mw", 0);
        values[i].ret = power ? (ret_t)of(d, "field_value_rc", SUCCESS) : NOT_SUPPORTED;
    }
    return (ret_t)of(d, "field_rc", SUCCESS);
}
