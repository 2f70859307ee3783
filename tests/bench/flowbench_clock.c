// SPDX-License-Identifier: GPL-2.0
/*
 * flowbench: time, and what of it the CPUs were busy. A CPU is idle from the
 * tracepoint cpu_idle to the first interrupt or the end of that state, whichever
 * comes first: what an interrupt does, and softirqs after it, is work.
 */
#include <linux/cpumask.h>
#include <linux/percpu.h>
#include <linux/sched/clock.h>
#include <linux/tracepoint.h>
#include <trace/events/power.h>

#include "flowbench.h"

struct bench_idle {
	u64 total;
	u64 since;		/* 0: it is not idle */
};

static DEFINE_PER_CPU(struct bench_idle, bench_idle);

static void bench_idle_ends(void)
{
	struct bench_idle *idle = this_cpu_ptr(&bench_idle);

	if (idle->since) {
		WRITE_ONCE(idle->total, idle->total + local_clock() - idle->since);
		WRITE_ONCE(idle->since, 0);
	}
}

static void bench_probe_idle(void *data, unsigned int state, unsigned int cpu)
{
	if (state == PWR_EVENT_EXIT)
		bench_idle_ends();
	else
		__this_cpu_write(bench_idle.since, local_clock());
}

static void bench_probe_vector(void *data, int vector)
{
	bench_idle_ends();
}

struct irqaction;

static void bench_probe_irq(void *data, int irq, struct irqaction *action)
{
	bench_idle_ends();
}

static void bench_probe_softirq(void *data, unsigned int vec)
{
	bench_idle_ends();
}

/* Those that are not exported are found by name; not each architecture has all. */
static struct bench_probe {
	const char *name;
	void *probe;
	struct tracepoint *tp;
} bench_probes[] = {
	{ "cpu_idle", bench_probe_idle },
	{ "local_timer_entry", bench_probe_vector },
	{ "reschedule_entry", bench_probe_vector },
	{ "call_function_entry", bench_probe_vector },
	{ "call_function_single_entry", bench_probe_vector },
	{ "irq_work_entry", bench_probe_vector },
	{ "irq_handler_entry", bench_probe_irq },
	{ "softirq_entry", bench_probe_softirq },
};

static void bench_probe_find(struct tracepoint *tp, void *data)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bench_probes); i++)
		if (!strcmp(tp->name, bench_probes[i].name))
			bench_probes[i].tp = tp;
}

void bench_clock_read(struct bench_clock *clock)
{
	const struct bench_idle *idle;
	u64 since;
	int cpu;

	clock->ns = local_clock();
	clock->busy_ns = 0;
	for_each_online_cpu(cpu) {
		idle = per_cpu_ptr(&bench_idle, cpu);
		since = READ_ONCE(idle->since);
		clock->busy_ns += clock->ns - READ_ONCE(idle->total);
		if (since && since < clock->ns)
			clock->busy_ns -= clock->ns - since;
	}
	bench_nic_driver(&clock->driver_ns, &clock->driver_calls);
}

void bench_clock_exit(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bench_probes); i++) {
		if (!bench_probes[i].tp)
			continue;
		tracepoint_probe_unregister(bench_probes[i].tp,
					    bench_probes[i].probe, NULL);
		bench_probes[i].tp = NULL;
	}
	tracepoint_synchronize_unregister();
}

int bench_clock_init(void)
{
	unsigned int i;
	int err = 0;

	for_each_kernel_tracepoint(bench_probe_find, NULL);
	for (i = 0; i < ARRAY_SIZE(bench_probes); i++) {
		if (!bench_probes[i].tp)
			continue;
		if (!err)
			err = tracepoint_probe_register(bench_probes[i].tp,
							bench_probes[i].probe,
							NULL);
		if (err)
			bench_probes[i].tp = NULL;
	}
	if (!bench_probes[0].tp && !err)
		err = -EOPNOTSUPP;
	if (err)
		bench_clock_exit();
	return err;
}
