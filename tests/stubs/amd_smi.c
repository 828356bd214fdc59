/* A stand-in for libamd_smi with the binary interface of the functions that energylens calls; see control.h. With
 * -DWITH_HEADER it is compiled against AMD's own amdsmi.h, which makes a wrong signature a compile error.
 *
 *   init_rc 34                   amdsmi_init fails; every other call then aborts
 *   devices 2                    number of GPUs, one per socket; dies_per_socket 2: two
 *   0.energy_counts 65536        energy accumulator; 0.energy_rc its code
 *   0.resolution 15.3            its resolution, uJ
 *   0.timestamp_ns 7             the driver's timestamp; CLOCK_MONOTONIC if not said
 *   0.type 2                     the processor is no GPU
 *   0.bdf 0xc100, 0.uuid TEXT, 0.name TEXT; 0.bdf_rc, 0.uuid_rc
 *   0.telemetry_rc 2             temperature, clocks, activity and memory are refused
 *   0.poison 1                   structs are filled to the end of the newest release's with ones
 */
#define _GNU_SOURCE
#include "control.h"
#include <stdint.h>

#ifdef WITH_HEADER
#include "amdsmi.h"
#else
typedef int amdsmi_status_t;
typedef void *amdsmi_processor_handle, *amdsmi_socket_handle;
typedef int processor_type_t, amdsmi_memory_type_t, amdsmi_temperature_type_t, amdsmi_temperature_metric_t, amdsmi_clk_type_t;
typedef union { uint64_t as_uint; } amdsmi_bdf_t;
typedef struct { char market_name[256]; uint32_t vendor_id, rest[159]; } amdsmi_asic_info_t; /* 896 bytes: release 26 */
typedef struct { uint32_t gfx_activity, umc_activity, mm_activity, reserved[13]; } amdsmi_engine_usage_t;
typedef struct { uint32_t clk, min_clk, max_clk; uint8_t clk_locked, clk_deep_sleep; uint32_t reserved[4]; } amdsmi_clk_info_t;
#endif

/* What src/source/amd/amd_smi.rs believes: its buffers are larger, and the first members are where it looks. */
_Static_assert(sizeof(amdsmi_asic_info_t) <= 4096 && sizeof(amdsmi_bdf_t) <= 32, "buffers");
_Static_assert(sizeof(amdsmi_engine_usage_t) <= 4096 && sizeof(amdsmi_clk_info_t) <= 4096, "buffers");
_Static_assert(__builtin_offsetof(amdsmi_asic_info_t, market_name) == 0, "market name");
_Static_assert(__builtin_offsetof(amdsmi_engine_usage_t, gfx_activity) == 0, "activity");
_Static_assert(__builtin_offsetof(amdsmi_clk_info_t, clk) == 0, "clock");

enum { OK = 0, INVALID = 1, UNSUPPORTED = 2, NOT_FOUND = 31 };
static int is_ready, gpus[CONTROL_DEVICES], sockets[CONTROL_DEVICES];

static int index_of(amdsmi_processor_handle h) {
    if (!is_ready) abort();
    return (int)((int *)h - gpus);
}

static int enter(amdsmi_processor_handle h, const char *call) { return control_enter(index_of(h), call); }

static amdsmi_status_t code(amdsmi_processor_handle h, const char *what) {
    return (amdsmi_status_t)control_of(index_of(h), what, OK);
}

/* What a library of a newer release does to a struct. */
static void poison(amdsmi_processor_handle h, void *p, size_t size) {
    memset(p, control_of(index_of(h), "poison", 0) ? 0xff : 0, size);
}

amdsmi_status_t amdsmi_init(uint64_t flags) {
    if (flags != 2) return (amdsmi_status_t)INVALID;
    int rc = (int)control_number("init_rc", OK);
    is_ready += rc == OK; /* counted, as in the real library */
    return (amdsmi_status_t)rc;
}

amdsmi_status_t amdsmi_shut_down(void) {
    if (!is_ready) abort();
    control_log("shutdown");
    is_ready--;
    return (amdsmi_status_t)OK;
}

static uint32_t dies_per_socket(void) { return (uint32_t)control_number("dies_per_socket", 1); }

amdsmi_status_t amdsmi_get_socket_handles(uint32_t *count, amdsmi_socket_handle *handles) {
    if (!is_ready) abort();
    uint32_t there = (uint32_t)control_number("devices", 1) / dies_per_socket();
    for (uint32_t i = 0; handles && i < *count && i < there && i < CONTROL_DEVICES; i++) handles[i] = &sockets[i];
    *count = there;
    return (amdsmi_status_t)OK;
}

amdsmi_status_t amdsmi_get_processor_handles(amdsmi_socket_handle socket, uint32_t *count, amdsmi_processor_handle *handles) {
    if (!is_ready) abort();
    uint32_t dies = dies_per_socket(), first = (uint32_t)((int *)socket - sockets) * dies;
    for (uint32_t i = 0; handles && i < *count && i < dies && first + i < CONTROL_DEVICES; i++) handles[i] = &gpus[first + i];
    *count = dies;
    return (amdsmi_status_t)OK;
}

amdsmi_status_t amdsmi_get_processor_type(amdsmi_processor_handle h, processor_type_t *type) {
    *type = (processor_type_t)control_of(index_of(h), "type", 1);
    return (amdsmi_status_t)OK;
}

amdsmi_status_t amdsmi_get_gpu_device_bdf(amdsmi_processor_handle h, amdsmi_bdf_t *bdf) {
    uint64_t value = control_of(index_of(h), "bdf", 0x100ull * (unsigned)(index_of(h) + 1));
    memcpy(bdf, &value, sizeof value);
    return code(h, "bdf_rc");
}

amdsmi_status_t amdsmi_get_gpu_device_uuid(amdsmi_processor_handle h, unsigned int *length, char *uuid) {
    char value[1024];
    int found = control_text_of(index_of(h), "uuid", value, sizeof value);
    if (!found) snprintf(value, sizeof value, "73ff74a1-0000-1000-80%02d-000000000000", index_of(h));
    if (strlen(value) >= *length) return (amdsmi_status_t)INVALID;
    snprintf(uuid, *length, "%s", value);
    return code(h, "uuid_rc");
}

amdsmi_status_t amdsmi_get_gpu_asic_info(amdsmi_processor_handle h, amdsmi_asic_info_t *info) {
    char value[256];
    poison(h, info, sizeof *info);
    int found = control_text_of(index_of(h), "name", value, sizeof value);
    snprintf(info->market_name, sizeof info->market_name, "%s", found ? value : "AMD Instinct MI300X");
    return code(h, "name_rc");
}

amdsmi_status_t amdsmi_get_energy_count(amdsmi_processor_handle h, uint64_t *counts, float *resolution, uint64_t *timestamp) {
    char value[64];
    if (!enter(h, "energy")) return (amdsmi_status_t)NOT_FOUND;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *counts = control_counter(index_of(h), "energy_counts", 65536.0);
    *resolution = control_text_of(index_of(h), "resolution", value, sizeof value) ? strtof(value, 0) : 15.3f;
    *timestamp = control_of(index_of(h), "timestamp_ns",
        (unsigned long long)now.tv_sec * 1000000000 + (unsigned long long)now.tv_nsec);
    return code(h, "energy_rc");
}

amdsmi_status_t amdsmi_get_gpu_memory_total(amdsmi_processor_handle h, amdsmi_memory_type_t type, uint64_t *total) {
    if (type != 0) return (amdsmi_status_t)INVALID;
    *total = control_of(index_of(h), "memory_bytes", 206141652992ull);
    return code(h, "telemetry_rc");
}

amdsmi_status_t amdsmi_get_gpu_memory_usage(amdsmi_processor_handle h, amdsmi_memory_type_t type, uint64_t *used) {
    if (type != 0) return (amdsmi_status_t)INVALID;
    *used = control_of(index_of(h), "memory_used_bytes", 1073741824ull);
    return code(h, "telemetry_rc");
}

amdsmi_status_t amdsmi_get_temp_metric(amdsmi_processor_handle h, amdsmi_temperature_type_t type,
                                       amdsmi_temperature_metric_t metric, int64_t *celsius) {
    if (type > 1 || metric != 0) return (amdsmi_status_t)INVALID;
    *celsius = type == 1 ? 61 : 48; /* hot spot; edge */
    return code(h, type == 1 ? "junction_rc" : "telemetry_rc");
}

amdsmi_status_t amdsmi_get_gpu_activity(amdsmi_processor_handle h, amdsmi_engine_usage_t *usage) {
    poison(h, usage, sizeof *usage);
    usage->gfx_activity = (uint32_t)control_of(index_of(h), "utilization", 25);
    return code(h, "telemetry_rc");
}

amdsmi_status_t amdsmi_get_clock_info(amdsmi_processor_handle h, amdsmi_clk_type_t type, amdsmi_clk_info_t *info) {
    poison(h, info, sizeof *info);
    info->clk = type == 4 ? 1300 : 2100; /* memory; graphics */
    return code(h, "telemetry_rc");
}
