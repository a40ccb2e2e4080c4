/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The smallest KVM guest: sixteen-bit code that adds two numbers, writes the
 * sum to a port and halts.  Prints "PROBE nested ok" when it did.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { CODE = 0x1000, PORT = 0x3f8, ROUNDS = 100 };

static int failed(const char *what)
{
    printf("PROBE nested failed: %s: %m\n", what);
    return 1;
}

static int run(int vcpu, struct kvm_run *run, uint8_t expected)
{
    if (ioctl(vcpu, KVM_RUN, 0)) {
        return failed("KVM_RUN");
    }
    if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT ||
        ((uint8_t *)run)[run->io.data_offset] != expected) {
        printf("PROBE nested failed: exit reason %u\n", run->exit_reason);
        return 1;
    }
    return 0;
}

int main(void)
{
    static const uint8_t code[] = {
        0xba, PORT & 0xff, PORT >> 8,   /* mov dx, PORT */
        0x00, 0xd8,                     /* again: add al, bl */
        0xee,                           /* out dx, al */
        0xeb, 0xfb,                     /* jmp again */
    };
    int kvm = open("/dev/kvm", O_RDWR), vm, vcpu, size;
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = CODE, .memory_size = 0x1000,
    };
    struct kvm_regs registers = { .rip = CODE, .rflags = 2, .rbx = 3 };
    struct kvm_sregs segments;
    struct kvm_run *shared;
    uint8_t *memory;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (kvm < 0) {
        return failed("/dev/kvm");
    }
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0) {
        return failed("KVM_CREATE_VM");
    }
    memory = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return failed("mmap");
    }
    memcpy(memory, code, sizeof(code));
    region.userspace_addr = (uintptr_t)memory;
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region)) {
        return failed("KVM_SET_USER_MEMORY_REGION");
    }
    vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vcpu < 0 || size < 0) {
        return failed("KVM_CREATE_VCPU");
    }
    shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (shared == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &segments)) {
        return failed("KVM_GET_SREGS");
    }
    segments.cs.base = 0;
    segments.cs.selector = 0;
    if (ioctl(vcpu, KVM_SET_SREGS, &segments) ||
        ioctl(vcpu, KVM_SET_REGS, &registers)) {
        return failed("KVM_SET_REGS");
    }
    for (int i = 1; i <= ROUNDS; i++) {
        if (run(vcpu, shared, (uint8_t)(3 * i))) {
            return 1;
        }
    }
    puts("PROBE nested ok");
    return 0;
}
