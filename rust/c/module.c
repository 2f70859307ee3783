// SPDX-License-Identifier: GPL-2.0
/* The module in whose place this one is. */
#include <linux/kobject.h>
#include <linux/module.h>

#include "../bindings/helpers.h"

/*
 * find_module() is not exported. Every loaded module is a kobject of the kset
 * that @this_module is in, and sysfs set that up before its init function ran.
 */
bool shim_module_is_loaded(struct module *this_module, const char *name)
{
	struct kset *modules = this_module->mkobj.kobj.kset;
	struct kobject *kobj;

	/* Without sysfs there is no telling. */
	kobj = modules ? kset_find_obj(modules, name) : NULL;
	if (!kobj)
		return false;

	kobject_put(kobj);
	return true;
}

bool shim_flow_table_inet_is_builtin(void)
{
	return IS_BUILTIN(CONFIG_NF_FLOW_TABLE_INET);
}
