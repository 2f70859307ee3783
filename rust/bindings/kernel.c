// SPDX-License-Identifier: GPL-2.0
#include <linux/cpumask.h>
#include <linux/jiffies.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>

#include "helpers.h"

u64 shim_jiffies64(void)
{
	return get_jiffies_64();
}

void shim_synchronize_rcu(void)
{
	synchronize_rcu();
}

unsigned int shim_num_online_cpus(void)
{
	return num_online_cpus();
}

void shim_cond_resched(void)
{
	cond_resched();
}
