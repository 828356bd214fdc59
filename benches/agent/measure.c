/* Runs a command and prints what it cost: "CPU_NS MAX_RSS_KIB STATUS".
 *
 *   measure REFUSE_FROM_S REFUSE_FOR_S COMMAND...
 *
 * With REFUSE_FOR_S above 0 the command cannot make any file longer, from REFUSE_FROM_S on and for that long: what a disk that
 * is full for a while does.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    int from = atoi(argv[1]), lasting = atoi(argv[2]);
    pid_t child = fork();
    if (child < 0) return perror("fork"), 1;
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN); /* an error, not a death */
        execvp(argv[3], argv + 3);
        perror(argv[3]);
        _exit(127);
    }
    if (lasting > 0) {
        struct rlimit was, none;
        sleep((unsigned)from);
        if (prlimit(child, RLIMIT_FSIZE, 0, &was)) return perror("prlimit"), 1;
        none = was;
        none.rlim_cur = 1;
        if (prlimit(child, RLIMIT_FSIZE, &none, 0)) return perror("prlimit"), 1;
        sleep((unsigned)lasting);
        if (prlimit(child, RLIMIT_FSIZE, &was, 0)) return perror("prlimit"), 1;
    }
    int status;
    struct rusage used;
    if (wait4(child, &status, 0, &used) != child) return perror("wait4"), 1;
    long long cpu_ns = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000ll
        + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000ll;
    fprintf(stderr, "\nmeasured %lld %ld %d\n", cpu_ns, used.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : 128);
    return 0;
}
