/*
 * A vCPU and its thread. It is parked (waiting on a condition, or doing a job for its owner) or
 * running (in KVM_RUN and its exits).
 *
 *     parked --vcpu_resume--> running --vcpu_park, or its own request--> parked --vcpu_end--> ended
 *
 * It goes from running to parked only when KVM_RUN returns EINTR, after an exit that was under way
 * has been completed by re-entering KVM; registers read while parked are therefore whole.
 *
 * While the vCPU has limits (throttle.h, quota.h) it runs in slices: its timer takes it out of KVM
 * at the end of each slice, and then it naps. Every request to the vCPU ends its nap.
 */
#ifndef GODWIT_VCPU_H
#define GODWIT_VCPU_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "vmm/device.h"
#include "vmm/quota.h"
#include "vmm/throttle.h"

struct err;
struct kvm;
struct kvm_run;

struct vcpu {
	/* Set before the thread starts. */
	unsigned int index;
	int fd;
	struct kvm_run *run;
	uint32_t run_bytes;
	const struct device_env *env;
	pthread_t thread;
	bool thread_started;
	timer_t timer; /* sends the thread its signal */
	bool timer_made;

	/* Under lock. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool parked;
	bool want_run, want_end;
	void (*job)(struct vcpu *v, void *arg);
	void *job_arg;
	pid_t thread_id;
	unsigned int throttle_permille;
	uint64_t dirty_bytes_per_s; /* 0: no limit */
	bool limits_changed;
	/* Since vcpu_resume: whether KVM has run it, and whether it met what KVM cannot run. */
	bool entered, failed;
	uint64_t entering_ns; /* when it went into KVM_RUN for the first time; 0: not yet */

	bool limited; /* atomic: the thread runs in slices, or should begin to */

	bool used; /* vCPU's thread: it has run, or was given a timer that a new vCPU lacks */

	/* The vCPU's thread: its slice under way. */
	struct throttle throttle;
	struct quota quota;
	bool slice_begun;
	uint64_t slice_start_ns, slice_end_ns; /* CLOCK_MONOTONIC */
	uint64_t ran_ns;		       /* of the thread's CPU time, at its start */
	uint64_t dirty_pages;		       /* of its ring, at its start */
};

/* KVM_CREATE_VCPU and its shared page; the thread starts parked with vcpu_start(). */
int vcpu_init(struct vcpu *v, unsigned int index, const struct device_env *env, struct err *e);
int vcpu_start(struct vcpu *v, struct err *e);
/* Ends and joins the thread if there is one, closes everything. */
void vcpu_free(struct vcpu *v);

/* Owner: asks the vCPU to run or to park, without waiting. */
void vcpu_resume(struct vcpu *v);
void vcpu_park(struct vcpu *v);

/* Owner: waits until the vCPU is parked and has no job; after vcpu_park() or vcpu_job(). */
void vcpu_wait(struct vcpu *v);

/*
 * Any thread, after vcpu_resume(): waits until KVM has run the vCPU, or cannot; until `end_ns`
 * (clock_ns) at most. Then vcpu_is_entered() returns
 *
 *    1  KVM has run it, or may have run it before it was parked again;
 *    2  it was parked before KVM could run it, and can be run;
 *    0  not known yet;
 *   -1  KVM cannot run it, and has not;
 *   -2  KVM has run it, and cannot run it any more.
 */
void vcpu_await_entry(struct vcpu *v, uint64_t end_ns);
int vcpu_is_entered(struct vcpu *v);
/* Takes a vCPU of which it is not known out of KVM: KVM_RUN's result then tells. */
void vcpu_prove_entry(struct vcpu *v);

/* Owner: gives a parked vCPU's thread something to do; wait with vcpu_wait(). */
void vcpu_job(struct vcpu *v, void (*job)(struct vcpu *v, void *arg), void *arg);

/*
 * Any thread: from now on the vCPU naps for this share of the time that it would run, in permille
 * up to THROTTLE_MAX_PERMILLE (a larger value counts as that). 0 ends a nap at once.
 */
void vcpu_throttle(struct vcpu *v, unsigned int permille);

/*
 * Any thread: from now on the vCPU naps whenever it dirties more than bytes_per_s (quota.h); 0:
 * never. Only for a machine with dirty rings.
 */
void vcpu_dirty_limit(struct vcpu *v, uint64_t bytes_per_s);

/* The signal that takes a thread out of KVM_RUN; its handler does nothing. Once a process. */
int vcpu_signal_init(struct err *e);

#endif
