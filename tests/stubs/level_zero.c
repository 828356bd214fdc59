/* A stand-in for libze_loader.so.1 with the binary interface of the functions that energylens calls. Compiled against the
 * vendor's <level_zero/zes_api.h> where that is installed, which holds every signature and structure below against it;
 * elsewhere against the same facts written down here.
 *
 * Keys of the control file besides those of control.h (the counter is in microjoules):
 *
 *   init_rc 0x78000001     zesInit; core_init_rc: zeInit; drivers_rc: the list of drivers
 *   drivers 1, devices 1   how many
 *   N.type 2               no GPU; N.bus 41: its PCI bus, 0x29 + N if not said; N.pci_rc, N.properties_rc
 *   N.domains card tile0   its power domains, of: card package stack gpu memory unknown tile0 tile1; "card" if not said
 *   N.card_domain card     what zesDeviceGetCardPowerDomain gives; unsupported if not said
 *   N.ext_rc 0x78000004    the driver refuses the extended power properties
 *   N.card_uj 123          the counter of a domain, or N.energy_uj that of all; N.energy_rc: their return code
 *   N.timestamp_us         the counter's timestamp, or the clock's
 *   N.limit_mw, N.sustained_mw, N.celsius, N.mhz, N.throttle, N.memory_total, N.memory_free, N.active_us
 *   enum_rc                return code of the list of power domains
 *
 * Flags: -DWITHOUT_ZES_INIT leaves zesInit out, as loaders before 2023 do; -DWITHOUT_COUNTER leaves out
 * zesPowerGetEnergyCounter; -DOWN_DEFINITIONS does not look for the vendor's header.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include "control.h"

#if defined(__has_include) && !defined(OWN_DEFINITIONS)
#if __has_include(<level_zero/zes_api.h>)
#define VENDOR_HEADER
#include <level_zero/zes_api.h>
#endif
#endif

#ifndef VENDOR_HEADER
typedef uint32_t ze_result_t;
typedef uint8_t ze_bool_t;
typedef uint32_t ze_init_flags_t;
typedef struct driver *ze_driver_handle_t;
typedef struct device *ze_device_handle_t, *zes_device_handle_t;
typedef struct pwr *zes_pwr_handle_t;
typedef struct freq *zes_freq_handle_t;
typedef struct temp *zes_temp_handle_t;
typedef struct mem *zes_mem_handle_t;
typedef struct engine *zes_engine_handle_t;
typedef struct {
    uint32_t stype;
    void *pNext;
    uint32_t type, vendorId, deviceId, flags, subdeviceId, coreClockRate;
    uint64_t maxMemAllocSize;
    uint32_t maxHardwareContexts, maxCommandQueuePriority, numThreadsPerEU, physicalEUSimdWidth, numEUsPerSubslice;
    uint32_t numSubslicesPerSlice, numSlices;
    uint64_t timerResolution;
    uint32_t timestampValidBits, kernelTimestampValidBits;
    uint8_t uuid[16];
    char name[256];
} ze_device_properties_t;
typedef struct {
    uint32_t stype;
    void *pNext;
    ze_device_properties_t core;
    uint32_t numSubdevices;
    char serialNumber[64], boardNumber[64], brandName[64], modelName[64], vendorName[64], driverVersion[64];
} zes_device_properties_t;
typedef struct {
    uint32_t stype;
    void *pNext;
    struct { uint32_t domain, bus, device, function; } address;
    struct { int32_t gen, width; int64_t maxBandwidth; } maxSpeed;
    ze_bool_t haveBandwidthCounters, havePacketCounters, haveReplayCounters;
} zes_pci_properties_t;
typedef struct {
    uint32_t stype;
    void *pNext;
    ze_bool_t onSubdevice;
    uint32_t subdeviceId;
    ze_bool_t canControl, isEnergyThresholdSupported;
    int32_t defaultLimit, minLimit, maxLimit;
} zes_power_properties_t;
typedef struct { uint32_t stype; void *pNext; uint32_t domain; void *defaultLimit; } zes_power_ext_properties_t;
typedef struct { uint64_t energy, timestamp; } zes_power_energy_counter_t;
typedef struct { ze_bool_t enabled; int32_t power, interval; } zes_power_sustained_limit_t;
typedef struct { ze_bool_t enabled; int32_t power; } zes_power_burst_limit_t;
typedef struct { int32_t powerAC, powerDC; } zes_power_peak_limit_t;
typedef struct {
    uint32_t stype;
    void *pNext;
    uint32_t type;
    ze_bool_t onSubdevice;
    uint32_t subdeviceId;
    ze_bool_t canControl, isThrottleEventSupported;
    double min, max;
} zes_freq_properties_t;
typedef struct {
    uint32_t stype;
    const void *pNext;
    double currentVoltage, request, tdp, efficient, actual;
    uint32_t throttleReasons;
} zes_freq_state_t;
typedef struct {
    uint32_t stype;
    void *pNext;
    uint32_t type;
    ze_bool_t onSubdevice;
    uint32_t subdeviceId;
    double maxTemperature;
    ze_bool_t isCriticalTempSupported, isThreshold1Supported, isThreshold2Supported;
} zes_temp_properties_t;
typedef struct {
    uint32_t stype;
    void *pNext;
    uint32_t type;
    ze_bool_t onSubdevice;
    uint32_t subdeviceId, location;
    uint64_t physicalSize;
    int32_t busWidth, numChannels;
} zes_mem_properties_t;
typedef struct { uint32_t stype; const void *pNext; uint32_t health; uint64_t free, size; } zes_mem_state_t;
typedef struct { uint32_t stype; void *pNext; uint32_t type; ze_bool_t onSubdevice; uint32_t subdeviceId; } zes_engine_properties_t;
typedef struct { uint64_t activeTime, timestamp; } zes_engine_stats_t;
#endif

#define OK ((ze_result_t)0)
#define LOST ((ze_result_t)0x70000001)
#define NO_INIT ((ze_result_t)0x78000001)
#define UNSUPPORTED ((ze_result_t)0x78000003)
enum { DOMAINS = 8, STYPE_POWER_EXT = 0x28 };
static const char *const NAMES[DOMAINS] = {"unknown", "card", "package", "stack", "memory", "gpu", "tile0", "tile1"};
/* zes_power_domain_t of each name. */
static const int KINDS[] = {0, 1, 2, 3, 4, 5, 3, 3};

/* Handles are addresses in here: of a device, or of one of its domains or sensors. */
static struct { char device; char domain[DOMAINS]; } table[CONTROL_DEVICES];
static char driver_table[4];
static int started, sysman;

static int device_of(const void *handle) { return (int)(((const char *)handle - (const char *)table) / (long)sizeof table[0]); }
static int domain_of(const void *handle) { return (int)((const char *)handle - table[device_of(handle)].domain); }

static ze_result_t code(const char *key) { return (ze_result_t)control_number(key, OK); }
static ze_result_t code_of(int device, const char *key) { return (ze_result_t)control_of(device, key, OK); }

static ze_result_t start(const char *call, const char *key, int with_sysman) {
    control_log(call);
    ze_result_t result = code(key);
    if (result == OK) started = 1, sysman = with_sysman;
    return result;
}

static ze_result_t drivers(uint32_t *count, ze_driver_handle_t *handles) {
    uint32_t n = (uint32_t)control_number("drivers", 1);
    if (!started) return NO_INIT;
    for (uint32_t i = 0; handles && i < n && i < *count; i++) handles[i] = (ze_driver_handle_t)(void *)&driver_table[i];
    *count = n;
    return code("drivers_rc");
}

static ze_result_t devices(uint32_t *count, void **handles) {
    uint32_t n = (uint32_t)control_number("devices", 1);
    for (uint32_t i = 0; handles && i < n && i < *count; i++) handles[i] = &table[i];
    *count = n;
    return OK;
}

ze_result_t zeInit(ze_init_flags_t flags) {
    (void)flags;
    const char *on = getenv("ZES_ENABLE_SYSMAN");
    return start("zeInit", "core_init_rc", on && strcmp(on, "1") == 0);
}
ze_result_t zeDriverGet(uint32_t *count, ze_driver_handle_t *handles) { return drivers(count, handles); }
ze_result_t zeDeviceGet(ze_driver_handle_t driver, uint32_t *count, ze_device_handle_t *handles) {
    (void)driver;
    return devices(count, (void **)handles);
}

#ifndef WITHOUT_ZES_INIT
ze_result_t zesInit(uint32_t flags);
ze_result_t zesDriverGet(uint32_t *count, ze_driver_handle_t *handles);
ze_result_t zesDeviceGet(ze_driver_handle_t driver, uint32_t *count, zes_device_handle_t *handles);
ze_result_t zesInit(uint32_t flags) {
    (void)flags;
    return start("zesInit", "init_rc", 1);
}
ze_result_t zesDriverGet(uint32_t *count, ze_driver_handle_t *handles) { return drivers(count, handles); }
ze_result_t zesDeviceGet(ze_driver_handle_t driver, uint32_t *count, zes_device_handle_t *handles) {
    (void)driver;
    return devices(count, (void **)handles);
}
#endif

ze_result_t zesDeviceGetProperties(zes_device_handle_t handle, zes_device_properties_t *p) {
    int d = device_of(handle);
    p->core.type = (typeof(p->core.type))control_of(d, "type", 1);
    p->numSubdevices = 2;
    if (!control_text_of(d, "name", p->core.name, sizeof p->core.name))
        snprintf(p->core.name, sizeof p->core.name, "Intel(R) Data Center GPU Max 1550");
    snprintf(p->driverVersion, sizeof p->driverVersion, "1.6.33578");
    return code_of(d, "properties_rc");
}

ze_result_t zesDevicePciGetProperties(zes_device_handle_t handle, zes_pci_properties_t *p) {
    int d = device_of(handle);
    p->address.domain = 0;
    p->address.bus = (uint32_t)control_of(d, "bus", 0x29ull + (unsigned)d);
    p->address.device = 0;
    p->address.function = (uint32_t)control_of(d, "function", 0);
    return code_of(d, "pci_rc");
}

ze_result_t zesDeviceEnumPowerDomains(zes_device_handle_t handle, uint32_t *count, zes_pwr_handle_t *handles) {
    int d = device_of(handle);
    char list[256] = "card", *rest = list, *word;
    uint32_t n = 0;
    if (!sysman) return NO_INIT;
    control_text_of(d, "domains", list, sizeof list);
    while ((word = strtok_r(rest, " ", &rest)))
        for (int i = 0; i < DOMAINS; i++)
            if (strcmp(word, NAMES[i]) == 0) {
                if (handles && n < *count) handles[n] = (zes_pwr_handle_t)(void *)&table[d].domain[i];
                n++;
            }
    *count = n;
    return code("enum_rc");
}

ze_result_t zesDeviceGetCardPowerDomain(zes_device_handle_t handle, zes_pwr_handle_t *domain) {
    int d = device_of(handle);
    char word[64];
    if (!control_text_of(d, "card_domain", word, sizeof word)) return UNSUPPORTED;
    for (int i = 0; i < DOMAINS; i++)
        if (strcmp(word, NAMES[i]) == 0) *domain = (zes_pwr_handle_t)(void *)&table[d].domain[i];
    return OK;
}

ze_result_t zesPowerGetProperties(zes_pwr_handle_t handle, zes_power_properties_t *p) {
    int d = device_of(handle), i = domain_of(handle);
    zes_power_ext_properties_t *extension = p->pNext;
    if (extension && control_of(d, "ext_rc", OK)) return code_of(d, "ext_rc");
    if (extension && (uint32_t)extension->stype == STYPE_POWER_EXT) extension->domain = (typeof(extension->domain))KINDS[i];
    p->onSubdevice = i >= 6;
    p->subdeviceId = i >= 6 ? (uint32_t)i - 6 : 0;
    p->defaultLimit = (int32_t)(long long)control_of(d, "limit_mw", (unsigned long long)-1);
    p->minLimit = p->maxLimit = -1;
    return OK;
}

#ifndef WITHOUT_COUNTER
ze_result_t zesPowerGetEnergyCounter(zes_pwr_handle_t handle, zes_power_energy_counter_t *counter) {
    int d = device_of(handle);
    char call[64], key[16], text[64];
    snprintf(call, sizeof call, "energy %d %s", d, NAMES[domain_of(handle)]);
    if (!control_enter(d, call)) return LOST;
    snprintf(key, sizeof key, "%s_uj", NAMES[domain_of(handle)]);
    if (!control_text_of(d, key, text, sizeof text)) snprintf(key, sizeof key, "energy_uj");
    counter->energy = control_counter(d, key, 1e6);
    counter->timestamp = control_of(d, "timestamp_us", control_now_ms() * 1000);
    return code_of(d, "energy_rc");
}
#endif

ze_result_t zesPowerGetLimits(zes_pwr_handle_t handle, zes_power_sustained_limit_t *sustained,
                              zes_power_burst_limit_t *burst, zes_power_peak_limit_t *peak) {
    int d = device_of(handle);
    (void)burst, (void)peak;
    sustained->power = (int32_t)control_of(d, "sustained_mw", 0);
    sustained->enabled = sustained->power != 0;
    sustained->interval = 28;
    return OK;
}

/* One sensor of each kind; its handle is the device's. */
static ze_result_t one(void *device, uint32_t *count, void **handles) {
    if (handles && *count) handles[0] = device;
    *count = 1;
    return OK;
}

ze_result_t zesDeviceEnumFrequencyDomains(zes_device_handle_t handle, uint32_t *count, zes_freq_handle_t *handles) {
    return one(handle, count, (void **)handles);
}
ze_result_t zesFrequencyGetProperties(zes_freq_handle_t handle, zes_freq_properties_t *p) {
    (void)handle;
    p->type = (typeof(p->type))0;
    return OK;
}
ze_result_t zesFrequencyGetState(zes_freq_handle_t handle, zes_freq_state_t *state) {
    int d = device_of(handle);
    state->actual = (double)(long long)control_of(d, "mhz", (unsigned long long)-1);
    state->throttleReasons = (uint32_t)control_of(d, "throttle", 0);
    return OK;
}

ze_result_t zesDeviceEnumTemperatureSensors(zes_device_handle_t handle, uint32_t *count, zes_temp_handle_t *handles) {
    return one(handle, count, (void **)handles);
}
ze_result_t zesTemperatureGetProperties(zes_temp_handle_t handle, zes_temp_properties_t *p) {
    (void)handle;
    p->type = (typeof(p->type))1;
    return OK;
}
ze_result_t zesTemperatureGetState(zes_temp_handle_t handle, double *celsius) {
    char text[64];
    if (!control_text_of(device_of(handle), "celsius", text, sizeof text)) return UNSUPPORTED;
    *celsius = strtod(text, 0);
    return OK;
}

ze_result_t zesDeviceEnumMemoryModules(zes_device_handle_t handle, uint32_t *count, zes_mem_handle_t *handles) {
    return one(handle, count, (void **)handles);
}
ze_result_t zesMemoryGetProperties(zes_mem_handle_t handle, zes_mem_properties_t *p) {
    p->location = (typeof(p->location))1;
    p->physicalSize = control_of(device_of(handle), "memory_total", 137438953472ull);
    return OK;
}
ze_result_t zesMemoryGetState(zes_mem_handle_t handle, zes_mem_state_t *state) {
    int d = device_of(handle);
    state->size = control_of(d, "memory_total", 137438953472ull);
    state->free = control_of(d, "memory_free", 137438953472ull);
    return OK;
}

ze_result_t zesDeviceEnumEngineGroups(zes_device_handle_t handle, uint32_t *count, zes_engine_handle_t *handles) {
    return one(handle, count, (void **)handles);
}
ze_result_t zesEngineGetProperties(zes_engine_handle_t handle, zes_engine_properties_t *p) {
    (void)handle;
    p->type = (typeof(p->type))0;
    p->onSubdevice = 0;
    return OK;
}
ze_result_t zesEngineGetActivity(zes_engine_handle_t handle, zes_engine_stats_t *stats) {
    int d = device_of(handle);
    stats->activeTime = control_of(d, "active_us", 0);
    stats->timestamp = control_of(d, "timestamp_us", 0);
    return OK;
}
