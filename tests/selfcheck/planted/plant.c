// SPDX-License-Identifier: GPL-2.0
/* Does on purpose what the test runner must notice: insmod plant.ko what=warn */
#include <linux/delay.h>
#include <linux/kmemleak.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>

static char *what = "";
module_param(what, charp, 0);
MODULE_PARM_DESC(what, "warn, panic, hang, leak, uaf or deadlock");

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);

static void plant_deadlock(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);
	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static void plant_uaf(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	if (!p)
		return;
	OPTIMIZER_HIDE_VAR(p);
	kfree(p);
	WRITE_ONCE(p[8], 1);
}

/* Many, because pointers to the last ones still lie around in the allocator's sheaves. */
static void plant_leak(void)
{
	void *p;
	int i;

	for (i = 0; i < 1024; i++) {
		p = kmalloc(100, GFP_KERNEL);
		OPTIMIZER_HIDE_VAR(p);
	}
	p = NULL;
	OPTIMIZER_HIDE_VAR(p);
}

static int __init plant_init(void)
{
	if (!strcmp(what, "warn")) {
		WARN(1, "planted\n");
	} else if (!strcmp(what, "panic")) {
		panic("planted");
	} else if (!strcmp(what, "hang")) {
		local_irq_disable();
		for (;;)
			cpu_relax();
	} else if (!strcmp(what, "leak")) {
		plant_leak();
	} else if (!strcmp(what, "uaf")) {
		plant_uaf();
	} else if (!strcmp(what, "deadlock")) {
		plant_deadlock();
	} else {
		return -EINVAL;
	}
	return 0;
}
module_init(plant_init);

static void __exit plant_exit(void)
{
}
module_exit(plant_exit);

MODULE_DESCRIPTION("Splats for the tests of the test runner");
MODULE_LICENSE("GPL");
