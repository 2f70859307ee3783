// SPDX-License-Identifier: GPL-2.0
/* flowbench: the module and its commands. See flowbench.h. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_buf.h>
#include <linux/uaccess.h>

#include "flowbench.h"

unsigned int bench_flows = 20000;
module_param_named(flows, bench_flows, uint, 0444);
MODULE_PARM_DESC(flows, "flows at most (default 20000)");

unsigned int bench_clients = 1000;
module_param_named(clients, bench_clients, uint, 0444);
MODULE_PARM_DESC(clients, "clients that these are of (default 1000)");

static struct dentry *bench_dir;
static DEFINE_MUTEX(bench_lock);
static char bench_text[512];
static struct seq_buf bench_answer;
static struct bench_clock bench_begin;

static void bench_told(const struct bench_clock *end)
{
	seq_buf_printf(&bench_answer,
		       "ns=%llu\nbusy_ns=%llu\ndriver_ns=%llu\ndriver_calls=%llu\n",
		       end->ns - bench_begin.ns,
		       end->busy_ns - bench_begin.busy_ns,
		       end->driver_ns - bench_begin.driver_ns,
		       end->driver_calls - bench_begin.driver_calls);
}

static int bench_tell(void)
{
	struct bench_clock now;

	bench_clock_read(&now);
	bench_told(&now);
	return 0;
}

static int bench_until(void)
{
	struct bench_clock when;
	int err;

	err = bench_nic_wait(&when);
	if (!err)
		bench_told(&when);
	return err;
}

static int bench_do_offer(unsigned int rate)
{
	static const struct {
		const char *name;
		unsigned int permille;
	} quantile[] = {
		{ "p50_ns", 500 }, { "p90_ns", 900 }, { "p99_ns", 990 }, { "max_ns", 1000 },
	};
	unsigned int i;
	bool rules;
	int err;

	bench_nic_expect(2 * bench_num_cts);
	bench_clock_read(&bench_begin);
	err = bench_offer(rate, &rules);
	if (err || !rules)
		return err ?: bench_tell();
	err = bench_until();
	if (err || !rate)
		return err;
	bench_latencies();
	for (i = 0; i < ARRAY_SIZE(quantile); i++)
		seq_buf_printf(&bench_answer, "%s=%llu\n", quantile[i].name,
			       bench_latency(quantile[i].permille));
	return 0;
}

static int bench_do_queue(void)
{
	bool rules;

	bench_nic_expect(2 * bench_num_cts);
	bench_clock_read(&bench_begin);
	return bench_offer(0, &rules);
}

static int bench_do_keep(unsigned int rounds, unsigned int lifetime, bool in_use)
{
	struct bench_clock end;
	int err = bench_keep(rounds, lifetime, in_use, &bench_begin, &end);

	if (!err)
		bench_told(&end);
	return err;
}

static int bench_do_packets(unsigned int number)
{
	u64 ns;
	int err = bench_packets(number, &ns);

	if (!err)
		seq_buf_printf(&bench_answer, "ns=%llu\n", ns);
	return err;
}

static int bench_do_latency(unsigned int us, const char *how)
{
	static const char * const name[] = {
		[BENCH_BUSY] = "busy", [BENCH_SLEEP] = "sleep", [BENCH_SERIAL] = "serial",
	};
	int latency = match_string(name, ARRAY_SIZE(name), how);

	if (latency < 0)
		return latency;
	bench_nic.latency = latency;
	bench_nic.latency_us = us;
	return 0;
}

static int bench_do(const char *command)
{
	unsigned int a = 0, b = 0;
	char word[8] = "";

	seq_buf_init(&bench_answer, bench_text, sizeof(bench_text));
	if (sscanf(command, "connections %7s %u", word, &a) == 2)
		return bench_connections(strcmp(word, "tcp") ? IPPROTO_UDP : IPPROTO_TCP, a);
	if (sscanf(command, "latency %u %7s", &a, word) == 2)
		return bench_do_latency(a, word);
	if (sscanf(command, "packets %u", &a) == 1)
		return bench_do_packets(a);
	if (sscanf(command, "keep %u %u", &a, &b) == 2)
		return bench_do_keep(a, b, true);
	if (sscanf(command, "idle %u %u", &a, &b) == 2)
		return bench_do_keep(a, b, false);
	if (!strcmp(command, "flows"))
		return bench_flows_make();
	if (!strcmp(command, "offer") || sscanf(command, "offer %u", &a) == 1)
		return bench_do_offer(a);
	if (!strcmp(command, "queue"))
		return bench_do_queue();
	if (!strcmp(command, "until"))
		return bench_until();
	if (!strcmp(command, "stop"))
		return bench_tell();
	if (!strcmp(command, "until_empty"))
		return bench_until_empty() ?: bench_tell();
	if (sscanf(command, "profile %u", &a) == 1)
		return bench_profile(a);
	if (!strcmp(command, "clear")) {
		bench_nic_clear();
		return 0;
	}

	if (!strcmp(command, "start") || sscanf(command, "start %u", &a) == 1) {
		bench_flows_forget();
		bench_nic_expect(strcmp(command, "start") ? a : -1);
		bench_clock_read(&bench_begin);
		return 0;
	}
	bench_clock_read(&bench_begin);
	if (!strcmp(command, "teardown"))
		return bench_teardown() ?: bench_tell();
	return -EINVAL;
}

static ssize_t bench_write(struct file *file, const char __user *from,
			   size_t len, loff_t *pos)
{
	char command[64];
	int err;

	if (len >= sizeof(command))
		return -EINVAL;
	if (copy_from_user(command, from, len))
		return -EFAULT;
	command[len] = '\0';

	err = mutex_lock_interruptible(&bench_lock);
	if (err)
		return err;
	err = bench_do(strim(command));
	mutex_unlock(&bench_lock);
	return err ?: len;
}

static ssize_t bench_read(struct file *file, char __user *to, size_t len,
			  loff_t *pos)
{
	ssize_t n;

	mutex_lock(&bench_lock);
	n = simple_read_from_buffer(to, len, pos, bench_text,
				    seq_buf_used(&bench_answer));
	mutex_unlock(&bench_lock);
	return n;
}

static const struct file_operations bench_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = bench_read,
	.write = bench_write,
};

static ssize_t bench_read_samples(struct file *file, char __user *to, size_t len,
				  loff_t *pos)
{
	const void *samples;
	size_t size;
	ssize_t n;

	mutex_lock(&bench_lock);
	samples = bench_profile_samples(&size);
	n = simple_read_from_buffer(to, len, pos, samples, size);
	mutex_unlock(&bench_lock);
	return n;
}

static const struct file_operations bench_samples_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = bench_read_samples,
};

static int __init bench_init(void)
{
	int err;

	if (!bench_flows || bench_flows > 10000000 || !bench_clients ||
	    bench_flows / bench_clients > U16_MAX - BENCH_PORT)
		return -EINVAL;
	err = bench_nic_init();
	if (err)
		return err;
	err = bench_flows_init();
	if (err)
		goto err_nic;
	err = bench_clock_init();
	if (err)
		goto err_flows;
	bench_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("do", 0600, bench_dir, NULL, &bench_fops);
	debugfs_create_file("samples", 0400, bench_dir, NULL, &bench_samples_fops);
	debugfs_create_atomic_t("rules", 0400, bench_dir, &bench_nic.rules);
	debugfs_create_atomic_t("errors", 0400, bench_dir, &bench_nic.errors);
	return 0;

err_flows:
	bench_flows_exit();
err_nic:
	bench_nic_exit();
	return err;
}

static void __exit bench_exit(void)
{
	debugfs_remove(bench_dir);
	bench_profile_exit();
	bench_clock_exit();
	bench_flows_exit();
	bench_nic_exit();
}

module_init(bench_init);
module_exit(bench_exit);

MODULE_DESCRIPTION("What a flowtable type costs, measured inside the kernel");
MODULE_LICENSE("GPL");
