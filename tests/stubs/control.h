/* What the stand-ins for driver libraries share: they answer what the file `control`, beside the library itself, says at
 * the moment of each call, one `KEY VALUE` per line, and append one line per driver call to the file `calls`. A file
 * rather than the environment, so that several copies of a library serve several tests in one process.
 *
 * Keys of device N that every library knows; the unit of the counter and its key are the library's own:
 *
 *   N.ramp_mw 250000    the counter also rises by itself at this power,
 *   N.refresh_ms 20     in steps this long (100 if not said; 0: at every read)
 *   N.modulus 65536     the counter starts again at 0 when it reaches this
 *   N.frozen 1          the counter keeps the value that it had when it was first read so
 *   N.block_ms 50       every driver call on this device takes this long
 *   N.gone_after 3      driver calls on this device after the third answer that it is lost
 *
 * A backward step, a reset or garbage is a control file written anew with another counter in it.
 */
#ifndef ENERGYLENS_CONTROL_H
#define ENERGYLENS_CONTROL_H
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before including anything: dladdr needs it"
#endif

enum { CONTROL_DEVICES = 16 };
static unsigned long long control_frozen[CONTROL_DEVICES];
static int control_is_frozen[CONTROL_DEVICES], control_calls[CONTROL_DEVICES];

static inline void control_beside(char *path, size_t size, const char *file) {
    Dl_info info;
    path[0] = 0;
    if (!dladdr((void *)&control_frozen, &info) || !info.dli_fname) return;
    const char *slash = strrchr(info.dli_fname, '/');
    int length = slash ? (int)(slash - info.dli_fname) : 1;
    snprintf(path, size, "%.*s/%s", length, slash ? info.dli_fname : ".", file);
}

static inline int control_text(const char *key, char *value, size_t size) {
    char path[4096], line[1024];
    control_beside(path, sizeof path, "control");
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

static inline unsigned long long control_number(const char *key, unsigned long long otherwise) {
    char value[1024];
    return control_text(key, value, sizeof value) ? strtoull(value, 0, 0) : otherwise;
}

static inline unsigned long long control_of(int device, const char *what, unsigned long long otherwise) {
    char key[64];
    snprintf(key, sizeof key, "%d.%s", device, what);
    return control_number(key, otherwise);
}

static inline int control_text_of(int device, const char *what, char *value, size_t size) {
    char key[64];
    snprintf(key, sizeof key, "%d.%s", device, what);
    return control_text(key, value, size);
}

static inline void control_log(const char *call) {
    char path[4096];
    control_beside(path, sizeof path, "calls");
    FILE *f = fopen(path, "a");
    if (f) {
        fprintf(f, "%s\n", call);
        fclose(f);
    }
}

static inline unsigned long long control_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * 1000 + (unsigned long long)now.tv_nsec / 1000000;
}

/* One driver call on a device: logged, as slow as it is told to be; 0 once the device is lost. */
static inline int control_enter(int device, const char *call) {
    control_log(call);
    if (device < 0 || device >= CONTROL_DEVICES) return 1;
    unsigned long long block_ms = control_of(device, "block_ms", 0);
    if (block_ms) {
        struct timespec t = {(time_t)(block_ms / 1000), (long)(block_ms % 1000) * 1000000};
        nanosleep(&t, 0);
    }
    char ignored[32];
    if (!control_text_of(device, "gone_after", ignored, sizeof ignored)) {
        control_calls[device] = 0;
        return 1;
    }
    return ++control_calls[device] <= (int)control_of(device, "gone_after", 0);
}

/* The energy counter of a device: what `key` says, and what the ramp has added since the machine started. */
static inline unsigned long long control_counter(int device, const char *key, double units_per_joule) {
    unsigned long long refresh_ms = control_of(device, "refresh_ms", 100), ms = control_now_ms();
    if (refresh_ms) ms = ms / refresh_ms * refresh_ms;
    double joules = (double)control_of(device, "ramp_mw", 0) * (double)ms / 1e6;
    unsigned long long value = control_of(device, key, 0) + (unsigned long long)(joules * units_per_joule + 0.5);
    unsigned long long modulus = control_of(device, "modulus", 0);
    if (modulus) value %= modulus;
    if (device < 0 || device >= CONTROL_DEVICES) return value;
    if (!control_of(device, "frozen", 0)) {
        control_is_frozen[device] = 0;
        return value;
    }
    if (!control_is_frozen[device]) {
        control_is_frozen[device] = 1;
        control_frozen[device] = value;
    }
    return control_frozen[device];
}
#endif
