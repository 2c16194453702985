/* Counts the operations that change files below the watched folders, and injects one fault at a given operation.
 *
 * Loaded with LD_PRELOAD, so that it also sees the writes of native libraries (sqlite, safetensors, torch). Nothing
 * happens until a process calls interposer_arm. Files below the watched folders count wherever the call comes from;
 * pipes, sockets and all other files are passed through.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { COUNT, SIGNAL, REFUSE, CLOCK };

#define MAX_FOLDERS 4
static char folders[MAX_FOLDERS][PATH_MAX];
static int folder_count;
static atomic_int armed;
static atomic_long operations;
static long fatal_operation, argument, torn;
static int action;
static atomic_long clock_offset;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* Start counting below `paths` (separated by line feeds). At operation `at` (from 1) do `what`: send signal `value`,
 * refuse this and all later operations that need space with errno `value`, or move the clock by `value` seconds. With
 * `half`, a write is cut in the middle before a signal. */
void interposer_arm(const char *paths, int what, long at, long value, int half) {
    folder_count = 0;
    while (*paths && folder_count < MAX_FOLDERS) {
        size_t length = strcspn(paths, "\n");
        memcpy(folders[folder_count], paths, length);
        folders[folder_count++][length] = 0;
        paths += length + (paths[length] == '\n');
    }
    action = what, fatal_operation = at, argument = value, torn = half;
    atomic_store(&operations, 0), atomic_store(&clock_offset, 0), atomic_store(&armed, 1);
}

long interposer_disarm(void) {
    armed = 0;
    return operations;
}

static int below(const char *path) {
    for (int i = 0; i < folder_count; i++) {
        size_t length = strlen(folders[i]);
        if (!strncmp(path, folders[i], length) && (path[length] == '/' || !path[length])) return 1;
    }
    return 0;
}

static int watched_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static int watched_at(int directory, const char *path) {
    char whole[2 * PATH_MAX], base[PATH_MAX], link[64];
    if (!armed || !path) return 0;
    if (*path == '/') return below(path);
    snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, base, sizeof base - 1);
    if (length <= 0) return 0;
    base[length] = 0;
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return below(whole);
}

/* Count an operation; return whether it must fail. `cut` says whether it is a write that can be cut in the middle. */
static int strike(int needs_space, int cut, int fd, const void *data, size_t size) {
    int kept = errno;
    long number = ++operations;
    if (action == REFUSE && number >= fatal_operation && needs_space) {
        errno = (int)argument;
        return 1;
    }
    if (number == fatal_operation) {
        if (action == CLOCK) clock_offset = argument;
        if (action == SIGNAL) {
            if (cut && torn && size > 1) (void)!REAL(write)(fd, data, size / 2);
            kill(getpid(), (int)argument);
        }
    }
    errno = kept;
    return 0;
}

#define CREATES(flags) ((flags) & (O_CREAT | O_TRUNC | O_TMPFILE) && ((flags) & O_ACCMODE) != O_RDONLY)
#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = va_arg(rest, mode_t);                                                                            \
        va_end(rest);                                                                                                  \
        if (CREATES(flags) && watched_at(AT_FDCWD, path) && strike(1, 0, -1, 0, 0)) return -1;                         \
        return ((int (*)(const char *, int, mode_t))real(#name))(path, flags, mode);                                   \
    }
#define OPENAT(name)                                                                                                   \
    int name(int directory, const char *path, int flags, ...) {                                                        \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = va_arg(rest, mode_t);                                                                            \
        va_end(rest);                                                                                                  \
        if (CREATES(flags) && watched_at(directory, path) && strike(1, 0, -1, 0, 0)) return -1;                        \
        return ((int (*)(int, const char *, int, mode_t))real(#name))(directory, path, flags, mode);                   \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                                                    \
    FILE *name(const char *path, const char *mode) {                                                                   \
        if (*mode != 'r' && watched_at(AT_FDCWD, path) && strike(1, 0, -1, 0, 0)) return NULL;                         \
        return REAL(name)(path, mode);                                                                                 \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int fd, const void *data, size_t size) {
    if (watched_fd(fd) && strike(1, 1, fd, data, size)) return -1;
    return REAL(write)(fd, data, size);
}

#define PWRITE(name, offset_type)                                                                                      \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) {                                          \
        if (watched_fd(fd) && strike(1, 0, -1, 0, 0)) return -1;                                                       \
        return REAL(name)(fd, data, size, offset);                                                                     \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (watched_fd(fd) && strike(1, 0, -1, 0, 0)) return -1;
    return REAL(writev)(fd, parts, count);
}

#define SENDFILE(name, offset_type)                                                                                    \
    ssize_t name(int out, int in, offset_type *offset, size_t count) {                                                 \
        if (watched_fd(out) && strike(1, 0, -1, 0, 0)) return -1;                                                      \
        return REAL(name)(out, in, offset, count);                                                                     \
    }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t count, unsigned flags) {
    if (watched_fd(out) && strike(1, 0, -1, 0, 0)) return -1;
    return REAL(copy_file_range)(in, from, out, to, count, flags);
}

#define TRUNCATE(name, offset_type)                                                                                    \
    int name(int fd, offset_type length) {                                                                             \
        if (watched_fd(fd) && strike(0, 0, -1, 0, 0)) return -1;                                                       \
        return REAL(name)(fd, length);                                                                                 \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define SYNC(name)                                                                                                     \
    int name(int fd) {                                                                                                 \
        if (watched_fd(fd)) strike(0, 0, -1, 0, 0);                                                                    \
        return REAL(name)(fd);                                                                                         \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to) {
    if (watched_at(AT_FDCWD, to)) strike(0, 0, -1, 0, 0);
    return REAL(rename)(from, to);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    if (watched_at(to_directory, to)) strike(0, 0, -1, 0, 0);
    return REAL(renameat)(from_directory, from, to_directory, to);
}

int link(const char *from, const char *to) {
    if (watched_at(AT_FDCWD, to) && strike(1, 0, -1, 0, 0)) return -1;
    return REAL(link)(from, to);
}

int symlink(const char *from, const char *to) {
    if (watched_at(AT_FDCWD, to) && strike(1, 0, -1, 0, 0)) return -1;
    return REAL(symlink)(from, to);
}

int mkdir(const char *path, mode_t mode) {
    if (watched_at(AT_FDCWD, path) && strike(1, 0, -1, 0, 0)) return -1;
    return REAL(mkdir)(path, mode);
}

int unlink(const char *path) {
    if (watched_at(AT_FDCWD, path)) strike(0, 0, -1, 0, 0);
    return REAL(unlink)(path);
}

int unlinkat(int directory, const char *path, int flags) {
    if (watched_at(directory, path)) strike(0, 0, -1, 0, 0);
    return REAL(unlinkat)(directory, path, flags);
}

int rmdir(const char *path) {
    if (watched_at(AT_FDCWD, path)) strike(0, 0, -1, 0, 0);
    return REAL(rmdir)(path);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = REAL(clock_gettime)(clock, now);
    if (armed && clock == CLOCK_REALTIME) now->tv_sec += clock_offset;
    return status;
}

int gettimeofday(struct timeval *now, void *zone) {
    int status = ((int (*)(struct timeval *, void *))real("gettimeofday"))(now, zone);
    if (armed) now->tv_sec += clock_offset;
    return status;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
