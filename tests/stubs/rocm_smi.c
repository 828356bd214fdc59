/* A stand-in for librocm_smi64 with the binary interface of the functions that energylens calls; see control.h. With
 * -DWITH_HEADER it is compiled against AMD's own rocm_smi.h, which makes a wrong signature a compile error.
 *
 *   init_rc 8                    rsmi_init fails; every other call then aborts, as the real library crashes
 *   devices 2                    number of GPUs
 *   0.energy_counts 65536        energy accumulator; 0.energy_rc its code
 *   0.resolution 15.3            its resolution, uJ
 *   0.timestamp_ns 7             the driver's timestamp; CLOCK_MONOTONIC if not said
 *   0.power_uw 300000000         average power; 0.power_rc its code
 *   0.socket_uw 300000000        power of the socket; refused if not said
 *   0.unique_id 0x1234, 0.bdf 0xc100, 0.name TEXT, 0.device_id 0x74a1
 *   0.telemetry_rc 2             temperature, activity and memory are refused
 */
#define _GNU_SOURCE
#include "control.h"
#include <stdint.h>

#ifdef WITH_HEADER
#include <rocm_smi/rocm_smi.h>
#else
typedef int rsmi_status_t;
typedef int rsmi_memory_type_t, rsmi_temperature_metric_t;
#endif

enum { OK = 0, INVALID = 1, UNSUPPORTED = 2, NOT_FOUND = 10 };
static int is_ready;

static int enter(uint32_t device, const char *call) {
    if (!is_ready) abort();
    return control_enter((int)device, call);
}

static rsmi_status_t code(uint32_t device, const char *what) {
    return (rsmi_status_t)control_of((int)device, what, OK);
}

rsmi_status_t rsmi_init(uint64_t flags) {
    (void)flags;
    int rc = (int)control_number("init_rc", OK);
    is_ready += rc == OK; /* counted, as in the real library */
    return (rsmi_status_t)rc;
}

rsmi_status_t rsmi_shut_down(void) {
    control_log("shutdown");
    is_ready--;
    return (rsmi_status_t)OK;
}

rsmi_status_t rsmi_num_monitor_devices(uint32_t *count) {
    if (!is_ready) abort();
    *count = (uint32_t)control_number("devices", 1);
    return (rsmi_status_t)control_number("count_rc", OK);
}

rsmi_status_t rsmi_dev_id_get(uint32_t device, uint16_t *id) {
    if (!enter(device, "id")) return (rsmi_status_t)NOT_FOUND;
    *id = (uint16_t)control_of((int)device, "device_id", 0x74a1);
    return (rsmi_status_t)OK;
}

rsmi_status_t rsmi_dev_name_get(uint32_t device, char *name, size_t length) {
    char value[1024];
    if (!enter(device, "name")) return (rsmi_status_t)NOT_FOUND;
    int found = control_text_of((int)device, "name", value, sizeof value);
    snprintf(name, length, "%s", found ? value : "AMD Instinct MI300X");
    return (rsmi_status_t)OK;
}

rsmi_status_t rsmi_dev_unique_id_get(uint32_t device, uint64_t *id) {
    if (!enter(device, "unique_id")) return (rsmi_status_t)NOT_FOUND;
    *id = control_of((int)device, "unique_id", 0);
    return (rsmi_status_t)(*id ? OK : UNSUPPORTED);
}

rsmi_status_t rsmi_dev_pci_id_get(uint32_t device, uint64_t *bdf) {
    if (!enter(device, "pci_id")) return (rsmi_status_t)NOT_FOUND;
    *bdf = control_of((int)device, "bdf", 0x100ull * (device + 1));
    return code(device, "bdf_rc");
}

rsmi_status_t rsmi_dev_energy_count_get(uint32_t device, uint64_t *counts, float *resolution, uint64_t *timestamp) {
    char value[64];
    if (!enter(device, "energy")) return (rsmi_status_t)NOT_FOUND;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *counts = control_counter((int)device, "energy_counts", 65536.0);
    *resolution = control_text_of((int)device, "resolution", value, sizeof value) ? strtof(value, 0) : 15.3f;
    *timestamp = control_of((int)device, "timestamp_ns",
        (unsigned long long)now.tv_sec * 1000000000 + (unsigned long long)now.tv_nsec);
    return code(device, "energy_rc");
}

rsmi_status_t rsmi_dev_power_ave_get(uint32_t device, uint32_t sensor, uint64_t *power) {
    if (!enter(device, "power")) return (rsmi_status_t)NOT_FOUND;
    if (sensor != 0) return (rsmi_status_t)INVALID;
    *power = control_of((int)device, "power_uw", 0);
    return code(device, "power_rc");
}

/* Not in the header of Debian's release. */
rsmi_status_t rsmi_dev_current_socket_power_get(uint32_t device, uint64_t *power);
rsmi_status_t rsmi_dev_current_socket_power_get(uint32_t device, uint64_t *power) {
    char ignored[64];
    if (!enter(device, "socket_power")) return (rsmi_status_t)NOT_FOUND;
    if (!control_text_of((int)device, "socket_uw", ignored, sizeof ignored)) return (rsmi_status_t)UNSUPPORTED;
    *power = control_of((int)device, "socket_uw", 0);
    return (rsmi_status_t)OK;
}

rsmi_status_t rsmi_dev_power_cap_get(uint32_t device, uint32_t sensor, uint64_t *cap) {
    (void)sensor;
    if (!enter(device, "power_cap")) return (rsmi_status_t)NOT_FOUND;
    *cap = control_of((int)device, "cap_uw", 750000000);
    return code(device, "cap_rc");
}

rsmi_status_t rsmi_dev_memory_total_get(uint32_t device, rsmi_memory_type_t type, uint64_t *total) {
    (void)type;
    if (!enter(device, "memory_total")) return (rsmi_status_t)NOT_FOUND;
    *total = control_of((int)device, "memory_bytes", 206141652992ull);
    return code(device, "telemetry_rc");
}

rsmi_status_t rsmi_dev_memory_usage_get(uint32_t device, rsmi_memory_type_t type, uint64_t *used) {
    (void)type;
    if (!enter(device, "memory_usage")) return (rsmi_status_t)NOT_FOUND;
    *used = control_of((int)device, "memory_used_bytes", 1073741824ull);
    return code(device, "telemetry_rc");
}

rsmi_status_t rsmi_dev_temp_metric_get(uint32_t device, uint32_t type, rsmi_temperature_metric_t metric, int64_t *milli) {
    (void)metric;
    if (!enter(device, "temperature")) return (rsmi_status_t)NOT_FOUND;
    if (type > 1) return (rsmi_status_t)INVALID;
    *milli = type == 1 ? 61000 : 48000; /* hot spot; edge */
    return code(device, type == 1 ? "junction_rc" : "telemetry_rc");
}

rsmi_status_t rsmi_dev_busy_percent_get(uint32_t device, uint32_t *percent) {
    if (!enter(device, "busy")) return (rsmi_status_t)NOT_FOUND;
    *percent = (uint32_t)control_of((int)device, "utilization", 25);
    return code(device, "telemetry_rc");
}
