/* A stand-in for libnvidia-ml.so.1 with the binary interface of the functions that energylens calls; see control.h.
 * With -DWITH_HEADER it is compiled against NVIDIA's own nvml.h, which makes a wrong signature a compile error.
 *
 *   init_rc 9              nvmlInit_v2 returns NVML_ERROR_DRIVER_NOT_LOADED
 *   devices 2              number of GPUs
 *   0.energy_mj 123456     energy counter of GPU 0; 0.energy_rc 15 is the code of both ways to it,
 *                          0.energy_call_rc that of nvmlDeviceGetTotalEnergyConsumption alone,
 *                          0.energy_call_mj what that function says instead
 *   0.module_mj 5          the counter of the module (scope 1), refused if not said
 *   0.scope0_rc 3          every field of the GPU's own scope is refused
 *   0.timestamp_us 7       the driver's timestamp; the wall clock if not said
 *   0.value_type 99        type of every field's value
 *   0.power_mw 300000      power; 0.field_rc, 0.field_value_rc and 0.power_rc are the codes of the ways to it
 *   0.average 1            the GPU knows field 185; 0.instant_rc 3: not 186
 *   0.handle_rc 4          nvmlDeviceGetHandleByIndex_v2
 *   0.mig 1                partitioned, 0.mig_devices of 7
 *   0.persistence 0        persistence mode is off
 *   0.telemetry_rc 3       temperature, clocks, utilisation and throttle reasons are refused
 *   0.throttle 4           bits of the throttle reasons
 *   0.name TEXT, 0.uuid TEXT
 */
#define _GNU_SOURCE
#include "control.h"
#include <stddef.h>

#ifdef WITH_HEADER
#include <nvml.h>
#else
typedef int nvmlReturn_t;
typedef struct nvmlDevice_st *nvmlDevice_t;
typedef int nvmlValueType_t, nvmlEnableState_t, nvmlClockType_t, nvmlTemperatureSensors_t;
typedef union { double dVal; int siVal; unsigned int uiVal; unsigned long ulVal; unsigned long long ullVal; } nvmlValue_t;
typedef struct {
    unsigned int fieldId, scopeId;
    long long timestamp, latencyUsec;
    nvmlValueType_t valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
#endif

/* What src/source/nvml/field.rs believes. */
_Static_assert(sizeof(nvmlFieldValue_t) == 40 && offsetof(nvmlFieldValue_t, timestamp) == 8, "field values");
_Static_assert(offsetof(nvmlFieldValue_t, valueType) == 24 && offsetof(nvmlFieldValue_t, nvmlReturn) == 28, "field values");
_Static_assert(offsetof(nvmlFieldValue_t, scopeId) == 4 && offsetof(nvmlFieldValue_t, value) == 32, "field values");

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, LOST = 15 };
enum { ENERGY = 83, POWER_AVERAGE = 185, POWER_INSTANT = 186, UINT = 1, ULONG_LONG = 3 };

struct nvmlDevice_st { int index; };
static struct nvmlDevice_st table[CONTROL_DEVICES], partitions[CONTROL_DEVICES];

static void answer(nvmlDevice_t d, const char *what, const char *otherwise, char *out, unsigned int size) {
    char value[1024];
    snprintf(out, size, "%s", control_text_of(d->index, what, value, sizeof value) ? value : otherwise);
}

static nvmlReturn_t code(nvmlDevice_t d, const char *what) { return (nvmlReturn_t)control_of(d->index, what, OK); }

nvmlReturn_t nvmlInit_v2(void) { return (nvmlReturn_t)control_number("init_rc", OK); }
nvmlReturn_t nvmlInitWithFlags(unsigned int flags) { (void)flags; return nvmlInit_v2(); }
#ifndef WITHOUT_SHUTDOWN
nvmlReturn_t nvmlShutdown(void) { control_log("shutdown"); return (nvmlReturn_t)OK; }
#endif

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    char value[1024];
    snprintf(version, length, "%s", control_text("driver", value, sizeof value) ? value : "580.95.05");
    return (nvmlReturn_t)OK;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = (unsigned int)control_number("devices", 1);
    return (nvmlReturn_t)control_number("count_rc", OK);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    if (index >= CONTROL_DEVICES) return (nvmlReturn_t)INVALID;
    table[index].index = (int)index;
    *device = &table[index];
    return code(*device, "handle_rc");
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *name, unsigned int length) {
    answer(d, "name", "NVIDIA H100 80GB HBM3", name, length);
    return (nvmlReturn_t)OK;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *uuid, unsigned int length) {
    char otherwise[64];
    snprintf(otherwise, sizeof otherwise, "GPU-00000000-0000-0000-0000-%012d", d->index);
    answer(d, "uuid", otherwise, uuid, length);
    return code(d, "uuid_rc");
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t d, unsigned int *limit_mw) {
    *limit_mw = (unsigned int)control_of(d->index, "limit_mw", 700000);
    return code(d, "limit_rc");
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *memory) {
    memory->total = control_of(d->index, "memory_bytes", 85899345920ull);
    memory->used = control_of(d->index, "memory_used_bytes", 1073741824ull);
    return code(d, "memory_rc");
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned int *current, unsigned int *pending) {
    *current = *pending = (unsigned int)control_of(d->index, "mig", 0);
    return (nvmlReturn_t)OK;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t d, unsigned int *count) {
    (void)d;
    *count = 7;
    return (nvmlReturn_t)OK;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t d, unsigned int index, nvmlDevice_t *partition) {
    if (index >= control_of(d->index, "mig_devices", 0)) return (nvmlReturn_t)6; /* not found */
    *partition = &partitions[index % CONTROL_DEVICES];
    return (nvmlReturn_t)OK;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t d, nvmlEnableState_t *mode) {
    *mode = (nvmlEnableState_t)control_of(d->index, "persistence", 1);
    return (nvmlReturn_t)OK;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, nvmlTemperatureSensors_t sensor, unsigned int *celsius) {
    (void)sensor;
    *celsius = (unsigned int)control_of(d->index, "temperature_c", 41);
    return code(d, "telemetry_rc");
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t d, nvmlClockType_t type, unsigned int *mhz) {
    *mhz = type == 2 ? 2619 : 1980; /* memory; anything else */
    return code(d, "telemetry_rc");
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *utilization) {
    utilization->gpu = (unsigned int)control_of(d->index, "utilization", 25);
    utilization->memory = 0;
    return code(d, "telemetry_rc");
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t d, unsigned long long *reasons) {
    *reasons = control_of(d->index, "throttle", 0);
    return code(d, "telemetry_rc");
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t d, unsigned long long *energy_mj) {
    if (!control_enter(d->index, "energy")) return (nvmlReturn_t)LOST;
    *energy_mj = control_of(d->index, "energy_call_mj", control_counter(d->index, "energy_mj", 1e3));
    return (nvmlReturn_t)control_of(d->index, "energy_call_rc", control_of(d->index, "energy_rc", OK));
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned int *power_mw) {
    if (!control_enter(d->index, "power")) return (nvmlReturn_t)LOST;
    *power_mw = (unsigned int)control_of(d->index, "power_mw", 0);
    return code(d, "power_rc");
}

static void fill(nvmlDevice_t d, nvmlFieldValue_t *v) {
    char ignored[32];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    v->timestamp = (long long)control_of(d->index, "timestamp_us",
        (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
    v->valueType = (nvmlValueType_t)control_of(d->index, "value_type", v->fieldId == ENERGY ? ULONG_LONG : UINT);
    v->nvmlReturn = (nvmlReturn_t)UNSUPPORTED;
    if (v->scopeId == 0 && control_of(d->index, "scope0_rc", OK) != OK) return;
    if (v->scopeId == 1 && !control_text_of(d->index, "module_mj", ignored, sizeof ignored)) return;
    if (v->scopeId > 1) return;
    switch (v->fieldId) {
    case ENERGY:
        v->value.ullVal = control_counter(d->index, v->scopeId ? "module_mj" : "energy_mj", 1e3);
        v->nvmlReturn = code(d, "energy_rc");
        return;
    case POWER_AVERAGE:
        if (!control_of(d->index, "average", 0)) return;
        break;
    case POWER_INSTANT:
        if (control_of(d->index, "instant_rc", OK) != OK) return;
        break;
    default:
        return;
    }
    v->value.uiVal = (unsigned int)control_of(d->index, v->scopeId ? "module_mw" : "power_mw", 0);
    v->nvmlReturn = code(d, "field_value_rc");
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t d, int count, nvmlFieldValue_t *values) {
    char call[64];
    snprintf(call, sizeof call, count == 1 ? "field %u" : "fields", count > 0 ? values[0].fieldId : 0);
    if (!control_enter(d->index, call)) return (nvmlReturn_t)LOST;
    for (int i = 0; i < count; i++) fill(d, &values[i]);
    return code(d, "field_rc");
}
