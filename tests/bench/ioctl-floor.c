/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What KVM's ioctls that move a VM's state cost by themselves.
 *
 *   ioctl-floor get|set <vcpus> <times> <request>,... <msr>,...
 *
 * Makes a VM with an in-kernel irqchip and that many vCPUs, each of which has
 * run.  Of the requests, which are those that a switch really makes, it does
 * each that gets (or sets) state once for every vCPU, once for every chip for
 * those of the irqchip.  One that occurs twice is done once, and those that
 * move no state (KVM_RUN and the like) are left out: a switch could do without.
 * What is set is what was read before.  Requests and MSRs are in hex.
 *
 * Prints JSON: {"msrs": n, "ns": [per time], "each": {"<request>": median ns},
 * "cold": median ns of all requests after a sleep, when little is in the caches,
 * "handoff": median ns of waking another thread and waiting for its answer,
 * "drain": median ns for all vCPUs of a KVM_RUN that a signal keeps from entering
 * the guest, with the mask that lets it in (see drain_pending_interrupts() of
 * the series)}
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum { MAX_VCPUS = 64, MAX_MSRS = 512, MAX_TIMES = 10000, CHIPS = 3,
       XSAVE_SIZE = 16384, PAGE = 4096 };

/* The two requests that move one kind of state, and where it is kept. */
enum state {
    REGS, SREGS, SREGS2, XSAVE, XSAVE2, XCRS, MSRS, LAPIC, EVENTS, MP_STATE,
    DEBUGREGS, TSC_OFFSET, IRQCHIP, STATES
};

static const struct {
    const char *name;
    unsigned long get, set;
} requests[STATES] = {
    [REGS] = { "REGS", KVM_GET_REGS, KVM_SET_REGS },
    [SREGS] = { "SREGS", KVM_GET_SREGS, KVM_SET_SREGS },
    [SREGS2] = { "SREGS2", KVM_GET_SREGS2, KVM_SET_SREGS2 },
    [XSAVE] = { "XSAVE", KVM_GET_XSAVE, KVM_SET_XSAVE },
    /* It is set by KVM_SET_XSAVE, whatever it was read with. */
    [XSAVE2] = { "XSAVE2", KVM_GET_XSAVE2, 0 },
    [XCRS] = { "XCRS", KVM_GET_XCRS, KVM_SET_XCRS },
    [MSRS] = { "MSRS", KVM_GET_MSRS, KVM_SET_MSRS },
    [LAPIC] = { "LAPIC", KVM_GET_LAPIC, KVM_SET_LAPIC },
    [EVENTS] = { "VCPU_EVENTS", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS },
    [MP_STATE] = { "MP_STATE", KVM_GET_MP_STATE, KVM_SET_MP_STATE },
    [DEBUGREGS] = { "DEBUGREGS", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS },
    [TSC_OFFSET] = { "DEVICE_ATTR", KVM_GET_DEVICE_ATTR, KVM_SET_DEVICE_ATTR },
    [IRQCHIP] = { "IRQCHIP", KVM_GET_IRQCHIP, KVM_SET_IRQCHIP },
};

struct vcpu {
    int fd;
    uint64_t tsc_offset;
    struct kvm_device_attr tsc_attr;
    struct kvm_msrs *msrs;
    /* Larger than any of the other states. */
    uint8_t state[STATES][XSAVE_SIZE];
};

static int vm;
static unsigned vcpu_count;
static struct vcpu *vcpus;
static struct kvm_irqchip chips[CHIPS];

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void *allocate(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (memory == MAP_FAILED) {
        err(1, "mmap");
    }
    return memory;
}

static int need(int fd, unsigned long request, void *argument, const char *what)
{
    int result = ioctl(fd, request, argument);

    if (result < 0) {
        err(1, "%s", what);
    }
    return result;
}

/* The argument of a request for one kind of state of a vCPU. */
static void *argument(struct vcpu *vcpu, enum state state)
{
    switch (state) {
    case MSRS:
        return vcpu->msrs;
    case TSC_OFFSET:
        return &vcpu->tsc_attr;
    default:
        return vcpu->state[state];
    }
}

static void move(enum state state, unsigned long request)
{
    if (state == IRQCHIP) {
        for (int i = 0; i < CHIPS; i++) {
            need(vm, request, &chips[i], "irqchip");
        }
        return;
    }
    for (unsigned i = 0; i < vcpu_count; i++) {
        need(vcpus[i].fd, request, argument(&vcpus[i], state),
             requests[state].name);
    }
}

/* Real mode at address 0, where a port is written: an exit to here. */
static void run_once(struct vcpu *vcpu, int kvm)
{
    size_t size = need(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "size of kvm_run");
    struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
                               vcpu->fd, 0);
    struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
    struct kvm_regs regs = { .rflags = 2 };
    struct kvm_sregs sregs;

    if (run == MAP_FAILED) {
        err(1, "kvm_run");
    }
    need(vcpu->fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
    sregs.cs.base = sregs.cs.selector = 0;
    need(vcpu->fd, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
    need(vcpu->fd, KVM_SET_REGS, &regs, "KVM_SET_REGS");
    need(vcpu->fd, KVM_SET_MP_STATE, &runnable, "KVM_SET_MP_STATE");
    do {
        need(vcpu->fd, KVM_RUN, NULL, "KVM_RUN");
    } while (run->exit_reason == KVM_EXIT_INTR);
    if (run->exit_reason != KVM_EXIT_IO) {
        errx(1, "the vCPU ended with exit reason %u", run->exit_reason);
    }
    /* Lets KVM complete the instruction. */
    run->immediate_exit = 1;
    ioctl(vcpu->fd, KVM_RUN, NULL);
    run->immediate_exit = 0;
}

static void make_vm(int kvm)
{
    static const uint8_t out_to_port_10[] = { 0xe6, 0x10 };
    uint8_t *memory = allocate(PAGE);
    struct kvm_userspace_memory_region region = {
        .memory_size = PAGE, .userspace_addr = (uintptr_t)memory,
    };
    struct kvm_cpuid2 *cpuid = allocate(sizeof(*cpuid) +
                                        256 * sizeof(cpuid->entries[0]));

    memcpy(memory, out_to_port_10, sizeof(out_to_port_10));
    vm = need(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
    need(vm, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
    need(vm, KVM_SET_USER_MEMORY_REGION, &region, "memory");
    cpuid->nent = 256;
    need(kvm, KVM_GET_SUPPORTED_CPUID, cpuid, "KVM_GET_SUPPORTED_CPUID");
    vcpus = allocate(vcpu_count * sizeof(*vcpus));
    for (unsigned i = 0; i < vcpu_count; i++) {
        vcpus[i].fd = need(vm, KVM_CREATE_VCPU, (void *)(uintptr_t)i,
                           "KVM_CREATE_VCPU");
        need(vcpus[i].fd, KVM_SET_CPUID2, cpuid, "KVM_SET_CPUID2");
        vcpus[i].tsc_attr = (struct kvm_device_attr) {
            .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET,
            .addr = (uintptr_t)&vcpus[i].tsc_offset,
        };
        run_once(&vcpus[i], kvm);
    }
    for (int i = 0; i < CHIPS; i++) {
        chips[i].chip_id = i;
    }
}

/*
 * The MSRs of a vCPU.  Those that this vCPU cannot read, or not write as they
 * were read, are left out: KVM would stop at them and move none of the rest.
 */
static void read_msrs(struct vcpu *vcpu, const uint32_t *indices, unsigned count)
{
    struct kvm_msrs *one = allocate(PAGE);

    vcpu->msrs = allocate(sizeof(*one) + MAX_MSRS * sizeof(one->entries[0]));
    one->nmsrs = 1;
    for (unsigned i = 0; i < count; i++) {
        one->entries[0].index = indices[i];
        if (ioctl(vcpu->fd, KVM_GET_MSRS, one) == 1 &&
            ioctl(vcpu->fd, KVM_SET_MSRS, one) == 1) {
            vcpu->msrs->entries[vcpu->msrs->nmsrs++] = one->entries[0];
        }
    }
}

static unsigned read_list(char *text, uint64_t *list, unsigned limit)
{
    unsigned count = 0;

    for (char *word; (word = strsep(&text, ",")) != NULL && *word; ) {
        if (count == limit) {
            errx(1, "more than %u in a list", limit);
        }
        list[count++] = strtoull(word, NULL, 16);
    }
    return count;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* What run_on_cpu() of QEMU does: hand work to a thread, wait until it is done. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned asked, answered;

static void *answer(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (asked == answered) {
            pthread_cond_wait(&changed, &lock);
        }
        answered = asked;
        pthread_cond_broadcast(&changed);
    }
    return NULL;
}

static void hand_off(void)
{
    pthread_mutex_lock(&lock);
    asked++;
    pthread_cond_broadcast(&changed);
    while (asked != answered) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
}

static uint64_t median(uint64_t *values, unsigned count)
{
    qsort(values, count, sizeof(values[0]), by_value);
    return values[count / 2];
}

/* Each request once; the time that took. */
static uint64_t move_all(const unsigned long todo[STATES])
{
    uint64_t begin = now_ns();

    for (enum state state = 0; state < STATES; state++) {
        if (todo[state]) {
            move(state, todo[state]);
        }
    }
    return now_ns() - begin;
}

static void on_signal(int unused)
{
    (void)unused;
}

static void drain(void)
{
    static struct {
        struct kvm_signal_mask head;
        uint64_t blocked;
    } __attribute__((packed)) mask = { .head = { .len = sizeof(uint64_t) } };
    struct timespec none = { 0 };
    sigset_t kick;

    sigemptyset(&kick);
    sigaddset(&kick, SIGUSR1);
    for (unsigned i = 0; i < vcpu_count; i++) {
        need(vcpus[i].fd, KVM_SET_SIGNAL_MASK, &mask, "KVM_SET_SIGNAL_MASK");
        pthread_kill(pthread_self(), SIGUSR1);
        if (ioctl(vcpus[i].fd, KVM_RUN, NULL) == 0) {
            errx(1, "KVM_RUN entered the guest in spite of a signal");
        }
        sigtimedwait(&kick, NULL, &none);
        need(vcpus[i].fd, KVM_SET_SIGNAL_MASK, NULL, "KVM_SET_SIGNAL_MASK");
    }
}

int main(int argc, char **argv)
{
    static uint64_t list[4096], each[MAX_TIMES], all[MAX_TIMES];
    static uint32_t indices[MAX_MSRS];
    unsigned long todo[STATES] = { 0 };
    unsigned times, count, done = 0;
    const struct timespec nap = { .tv_nsec = 2000000 };
    pthread_t thread;
    uint64_t cold;
    sigset_t kick;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    bool set;

    if (argc != 6 || kvm < 0) {
        errx(1, "usage: ioctl-floor get|set vcpus times requests msrs, "
             "where there is /dev/kvm");
    }
    set = !strcmp(argv[1], "set");
    vcpu_count = strtoul(argv[2], NULL, 10);
    times = strtoul(argv[3], NULL, 10);
    if (!vcpu_count || vcpu_count > MAX_VCPUS || !times || times > MAX_TIMES) {
        errx(1, "too many, or none");
    }
    make_vm(kvm);

    count = read_list(argv[4], list, sizeof(list) / sizeof(list[0]));
    for (enum state state = 0; state < STATES; state++) {
        unsigned long request = set ? requests[state].set : requests[state].get;

        for (unsigned i = 0; i < count; i++) {
            if (list[i] == request) {
                todo[state] = request;
            }
        }
    }
    if (todo[SREGS2]) {
        /* The same registers once more. */
        todo[SREGS] = 0;
    }
    count = read_list(argv[5], list, MAX_MSRS);
    for (unsigned i = 0; i < count; i++) {
        indices[i] = list[i];
    }
    for (unsigned i = 0; i < vcpu_count; i++) {
        read_msrs(&vcpus[i], indices, count);
    }
    /* What will be set must have been read. */
    for (enum state state = 0; state < STATES; state++) {
        if (todo[state]) {
            move(state, requests[state].get);
        }
    }

    for (unsigned time = 0; time < times; time++) {
        all[time] = move_all(todo);
    }
    for (unsigned time = 0; time < times; time++) {
        nanosleep(&nap, NULL);
        each[time] = move_all(todo);
    }
    cold = median(each, times);

    printf("{\"msrs\": %u, \"ns\": [", vcpus[0].msrs->nmsrs);
    for (unsigned time = 0; time < times; time++) {
        printf("%s%llu", time ? ", " : "", (unsigned long long)all[time]);
    }
    printf("], \"each\": {");
    for (enum state state = 0; state < STATES; state++) {
        if (!todo[state]) {
            continue;
        }
        for (unsigned time = 0; time < times; time++) {
            uint64_t begin = now_ns();

            move(state, todo[state]);
            each[time] = now_ns() - begin;
        }
        printf("%s\"KVM_%s_%s\": %llu", done++ ? ", " : "",
               set ? "SET" : "GET",
               requests[state].name, (unsigned long long)median(each, times));
    }
    if (pthread_create(&thread, NULL, answer, NULL)) {
        errx(1, "no thread");
    }
    for (unsigned time = 0; time < times; time++) {
        uint64_t begin;

        /* Both threads sleep by then, as those of a VM at rest do. */
        nanosleep(&nap, NULL);
        begin = now_ns();
        hand_off();
        each[time] = now_ns() - begin;
    }
    printf("}, \"cold\": %llu, \"handoff\": %llu", (unsigned long long)cold,
           (unsigned long long)median(each, times));

    signal(SIGUSR1, on_signal);
    sigemptyset(&kick);
    sigaddset(&kick, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &kick, NULL);
    for (unsigned time = 0; time < times; time++) {
        uint64_t begin = now_ns();

        drain();
        each[time] = now_ns() - begin;
    }
    printf(", \"drain\": %llu}\n", (unsigned long long)median(each, times));
    return 0;
}
