/*
 * Counts the system calls that change a watched folder, in all processes of a run, and at the Nth of
 * them kills, fails or cuts short. Preloaded; the tests set the control file's fields.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL_SELF, KILL_PARENT, KILL_ALL, KILL_TORN, FAIL, SHORT };
enum { OPEN = 1, WRITE, TRUNCATE, SYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, PUNCH, READ };

struct control {
    _Atomic uint64_t count;
    uint64_t at;      /* the call to act on, from 1 */
    uint64_t last;    /* and the last one */
    uint32_t action;
    uint32_t number;  /* errno */
    uint32_t calls;   /* bits of the kinds that count */
    int32_t parent;
    _Atomic uint32_t busy;
    uint32_t logging;
    uint64_t used;    /* bytes of the log */
    uint64_t room;
    char folder[4096 - 64];
    char log[];
};

struct entry {
    uint32_t kind, pid;
    uint64_t inode, offset, length;
    uint32_t path, other, data, reserved;
};

static struct control *control;

#define REAL(name) static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SNAPMIG_SHIM");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    struct stat facts;
    if (fd < 0) return;
    fstat(fd, &facts);
    control = mmap(NULL, facts.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (control == MAP_FAILED) control = NULL;
}

static int watched(const char *path)
{
    size_t length = strlen(control->folder);
    return length && !strncmp(path, control->folder, length);
}

static int resolve(int dir, const char *path, char *out)
{
    char link[64];
    ssize_t length;
    if (!control || !control->folder[0]) return 0;
    if (path && path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return watched(out);
    }
    if (dir == AT_FDCWD) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    length = readlink(link, out, PATH_MAX - 1);
    if (length < 0) return 0;
    out[length] = 0;
    if (path) snprintf(out + length, PATH_MAX - length, "/%s", path);
    return watched(out);
}

static uint64_t inode_of(int fd, const char *path)
{
    struct stat facts;
    if (fd >= 0 ? fstat(fd, &facts) : lstat(path, &facts)) return 0;
    return facts.st_ino;
}

static void append(const void *data, size_t length)
{
    if (control->used + length > control->room) return;
    if (length) memcpy(control->log + control->used, data, length);
    control->used += length;
}

/* Returns an action for this call, holding the log's lock if there is a log. */
static int enter(int kind)
{
    uint64_t count;
    if (!(control->calls >> kind & 1)) return NOTHING;
    if (control->logging) {
        uint32_t free = 0;
        while (!atomic_compare_exchange_weak(&control->busy, &free, 1)) {
            free = 0;
            sched_yield();
        }
    }
    count = atomic_fetch_add(&control->count, 1) + 1;
    if (!control->at || count < control->at || count > control->last) return NOTHING;
    switch (control->action) {
    case KILL_SELF: kill(getpid(), SIGKILL); break;
    case KILL_PARENT: kill(control->parent, SIGKILL); break;
    case KILL_ALL: kill(0, SIGKILL); break;
    }
    return control->action;
}

static void leave(int kind, uint64_t inode, uint64_t offset, uint64_t length, const char *path,
                  const char *other, const void *data, int done)
{
    int saved = errno;
    if (control->logging && control->calls >> kind & 1) {
        if (done) {
            struct entry entry = {kind, getpid(), inode, offset, length, 0, 0, 0, 0};
            entry.path = path ? strlen(path) : 0;
            entry.other = other ? strlen(other) : 0;
            entry.data = data ? length : 0;
            append(&entry, sizeof entry);
            append(path, entry.path);
            append(other, entry.other);
            append(data, entry.data);
        }
        atomic_store(&control->busy, 0);
    }
    errno = saved;
}

#define FAILS(action) if ((action) == FAIL) { errno = control->number; result = -1; } else

#define OPENS(name, declaration, dir, call) \
    int name declaration { \
        char full[PATH_MAX]; mode_t mode = 0; int result, action; \
        REAL(name); \
        if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
            va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); } \
        if (!(flags & O_CREAT) || !resolve(dir, path, full)) return call; \
        int made = access(full, F_OK) != 0; \
        action = enter(OPEN); \
        FAILS(action) result = call; \
        leave(OPEN, result < 0 ? 0 : inode_of(result, NULL), 0, made, full, NULL, NULL, result >= 0 && made); \
        return result; }
OPENS(open, (const char *path, int flags, ...), AT_FDCWD, real(path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), AT_FDCWD, real(path, flags, mode))
OPENS(openat, (int dir, const char *path, int flags, ...), dir, real(dir, path, flags, mode))
OPENS(openat64, (int dir, const char *path, int flags, ...), dir, real(dir, path, flags, mode))

#define WRITES(name, type) \
    ssize_t name(int fd, const void *data, size_t length, type offset) { \
        char full[PATH_MAX]; ssize_t result; int action; \
        REAL(name); \
        if (!resolve(fd, NULL, full)) return real(fd, data, length, offset); \
        action = enter(WRITE); \
        if (action == KILL_TORN) { real(fd, data, length / 2, offset); kill(0, SIGKILL); } \
        if (action == SHORT && length > 1) length /= 2; \
        FAILS(action) result = real(fd, data, length, offset); \
        leave(WRITE, inode_of(fd, NULL), offset, result < 0 ? 0 : result, NULL, NULL, data, result >= 0); \
        return result; }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t length)
{
    char full[PATH_MAX]; ssize_t result; int action;
    REAL(write);
    if (!resolve(fd, NULL, full)) return real(fd, data, length);
    uint64_t offset = lseek(fd, 0, SEEK_CUR);
    action = enter(WRITE);
    if (action == KILL_TORN) { real(fd, data, length / 2); kill(0, SIGKILL); }
    if (action == SHORT && length > 1) length /= 2;
    FAILS(action) result = real(fd, data, length);
    leave(WRITE, inode_of(fd, NULL), offset, result < 0 ? 0 : result, NULL, NULL, data, result >= 0);
    return result;
}

#define READS(name, type) \
    ssize_t name(int fd, void *data, size_t length, type offset) { \
        char full[PATH_MAX]; ssize_t result; int action; \
        REAL(name); \
        if (!resolve(fd, NULL, full)) return real(fd, data, length, offset); \
        action = enter(READ); \
        if (action == SHORT && length > 1) length /= 2; \
        FAILS(action) result = real(fd, data, length, offset); \
        leave(READ, 0, 0, 0, NULL, NULL, NULL, 0); \
        return result; }
READS(pread, off_t)
READS(pread64, off64_t)

/* Of a short read half of the first buffer is left; Python gives but one. */
#define READS_PARTS(name, declaration, arguments) \
    ssize_t name declaration { \
        char full[PATH_MAX]; ssize_t result; int action; \
        REAL(name); \
        if (!resolve(fd, NULL, full)) return real arguments; \
        action = enter(READ); \
        struct iovec half = {parts[0].iov_base, parts[0].iov_len / 2}; \
        if (action == SHORT && half.iov_len) parts = &half, count = 1; \
        FAILS(action) result = real arguments; \
        leave(READ, 0, 0, 0, NULL, NULL, NULL, 0); \
        return result; }
#define PARTS int fd, const struct iovec *parts, int count
READS_PARTS(preadv, (PARTS, off_t offset), (fd, parts, count, offset))
READS_PARTS(preadv64, (PARTS, off64_t offset), (fd, parts, count, offset))
READS_PARTS(preadv2, (PARTS, off_t offset, int flags), (fd, parts, count, offset, flags))
READS_PARTS(preadv64v2, (PARTS, off64_t offset, int flags), (fd, parts, count, offset, flags))

#define SIMPLE(name, declaration, arguments, watch, kind, inode, offset, length, path, other) \
    int name declaration { \
        char full[PATH_MAX], second[PATH_MAX]; int result, action; \
        (void)second; REAL(name); \
        if (!(watch)) return real arguments; \
        uint64_t number = inode; \
        action = enter(kind); \
        FAILS(action) result = real arguments; \
        leave(kind, number, offset, length, path, other, NULL, result == 0); \
        return result; }

#define OF_FD resolve(fd, NULL, full)
SIMPLE(ftruncate, (int fd, off_t size), (fd, size), OF_FD, TRUNCATE, inode_of(fd, NULL), size, 0, NULL, NULL)
SIMPLE(ftruncate64, (int fd, off64_t size), (fd, size), OF_FD, TRUNCATE, inode_of(fd, NULL), size, 0, NULL, NULL)
SIMPLE(fsync, (int fd), (fd), OF_FD, SYNC, inode_of(fd, NULL), 0, 0, full, NULL)
SIMPLE(fdatasync, (int fd), (fd), OF_FD, SYNC, inode_of(fd, NULL), 0, 0, full, NULL)
SIMPLE(fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), OF_FD, PUNCH,
       inode_of(fd, NULL), at, size, NULL, NULL)
SIMPLE(fallocate64, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size), OF_FD, PUNCH,
       inode_of(fd, NULL), at, size, NULL, NULL)

#define OF_PATHS(d1, p1, d2, p2) (resolve(d1, p1, full) && resolve(d2, p2, second))
SIMPLE(rename, (const char *a, const char *b), (a, b), OF_PATHS(AT_FDCWD, a, AT_FDCWD, b), RENAME,
       inode_of(-1, full), 0, 0, full, second)
SIMPLE(renameat, (int d, const char *a, int e, const char *b), (d, a, e, b), OF_PATHS(d, a, e, b),
       RENAME, inode_of(-1, full), 0, 0, full, second)
SIMPLE(renameat2, (int d, const char *a, int e, const char *b, unsigned f), (d, a, e, b, f),
       OF_PATHS(d, a, e, b), RENAME, inode_of(-1, full), 0, 0, full, second)
SIMPLE(link, (const char *a, const char *b), (a, b), OF_PATHS(AT_FDCWD, a, AT_FDCWD, b), LINK,
       inode_of(-1, full), 0, 0, full, second)
SIMPLE(linkat, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f),
       OF_PATHS(d, a, e, b), LINK, inode_of(-1, full), 0, 0, full, second)

#define OF_PATH(d, p) resolve(d, p, full)
SIMPLE(unlink, (const char *a), (a), OF_PATH(AT_FDCWD, a), UNLINK, inode_of(-1, full), 0, 0, full, NULL)
SIMPLE(unlinkat, (int d, const char *a, int f), (d, a, f), OF_PATH(d, a),
       UNLINK, inode_of(-1, full), 0, 0, full, NULL)
SIMPLE(rmdir, (const char *a), (a), OF_PATH(AT_FDCWD, a), RMDIR, inode_of(-1, full), 0, 0, full, NULL)
SIMPLE(mkdir, (const char *a, mode_t m), (a, m), OF_PATH(AT_FDCWD, a), MKDIR, 0, 0, 0, full, NULL)
SIMPLE(mkdirat, (int d, const char *a, mode_t m), (d, a, m), OF_PATH(d, a), MKDIR, 0, 0, 0, full, NULL)
