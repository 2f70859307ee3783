// SPDX-License-Identifier: GPL-2.0
/*
 * flowbench: where the time goes. On each CPU, perf's clock tells every so often
 * what runs, and what has called it. What interrupts are off for is seen where they
 * are on again.
 */
#include <linux/cpumask.h>
#include <linux/perf_event.h>
#include <linux/ptrace.h>
#include <linux/stacktrace.h>
#include <linux/vmalloc.h>

#include "flowbench.h"

#ifdef CONFIG_PERF_EVENTS

#define BENCH_SAMPLES	100000

static unsigned long (*bench_samples)[BENCH_DEPTH];
static atomic_t bench_taken;
static DEFINE_PER_CPU(struct perf_event *, bench_event);

static void bench_sample(struct perf_event *event, struct perf_sample_data *data,
			 struct pt_regs *regs)
{
	unsigned long stack[BENCH_DEPTH + 16];
	unsigned int i, first, depth;
	unsigned int n = atomic_inc_return(&bench_taken) - 1;

	if (n >= BENCH_SAMPLES)
		return;
	depth = stack_trace_save(stack, ARRAY_SIZE(stack), 0);
	/* the interrupt's own frames come first */
	for (first = 0; first < depth; first++)
		if (stack[first] == instruction_pointer(regs))
			break;
	bench_samples[n][0] = instruction_pointer(regs);
	for (i = 1; i < BENCH_DEPTH; i++)
		bench_samples[n][i] = first + i < depth ? stack[first + i] : 0;
}

static void bench_profile_stop(void)
{
	struct perf_event *event;
	int cpu;

	for_each_possible_cpu(cpu) {
		event = per_cpu(bench_event, cpu);
		if (event)
			perf_event_release_kernel(event);
		per_cpu(bench_event, cpu) = NULL;
	}
}

/* A sample each @ns of work from now on; with 0, no more are taken. */
int bench_profile(unsigned int ns)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.size = sizeof(attr),
		.sample_period = ns,
		.exclude_user = 1,
		.exclude_idle = 1,
	};
	struct perf_event *event;
	int cpu, err = 0;

	bench_profile_stop();
	if (!ns)
		return 0;
	if (!bench_samples)
		bench_samples = vmalloc_array(BENCH_SAMPLES, sizeof(*bench_samples));
	if (!bench_samples)
		return -ENOMEM;
	atomic_set(&bench_taken, 0);

	cpus_read_lock();
	for_each_online_cpu(cpu) {
		event = perf_event_create_kernel_counter(&attr, cpu, NULL,
							 bench_sample, NULL);
		if (IS_ERR(event)) {
			err = PTR_ERR(event);
			break;
		}
		per_cpu(bench_event, cpu) = event;
	}
	cpus_read_unlock();
	if (err)
		bench_profile_stop();
	return err;
}

const void *bench_profile_samples(size_t *size)
{
	*size = min(atomic_read(&bench_taken), BENCH_SAMPLES) * sizeof(*bench_samples);
	return bench_samples;
}

void bench_profile_exit(void)
{
	bench_profile_stop();
	vfree(bench_samples);
}

#else

int bench_profile(unsigned int ns)
{
	return -EOPNOTSUPP;
}

const void *bench_profile_samples(size_t *size)
{
	*size = 0;
	return NULL;
}

void bench_profile_exit(void)
{
}

#endif
