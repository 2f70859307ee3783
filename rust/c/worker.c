// SPDX-License-Identifier: GPL-2.0
/* Works of this module's own workqueue: none is left when its worker has stopped. */
#include "../bindings/helpers.h"

struct workqueue_struct *shim_alloc_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
}

void shim_flush_workqueue(struct workqueue_struct *queue)
{
	flush_workqueue(queue);
}

static void worker_now(struct work_struct *work)
{
	struct shim_worker *worker = container_of(work, struct shim_worker, now);

	worker->run_now(worker->data);
}

static void worker_later(struct work_struct *work)
{
	struct shim_worker *worker =
		container_of(work, struct shim_worker, later.work);

	worker->run_later(worker->data);
}

void shim_worker_init(struct shim_worker *worker,
		      struct workqueue_struct *queue,
		      void (*run_now)(void *data),
		      void (*run_later)(void *data), void *data,
		      struct lock_class_key *keys[2])
{
	worker->queue = queue;
	worker->run_now = run_now;
	worker->run_later = run_later;
	worker->data = data;
	__INIT_WORK_KEY(&worker->now, worker_now, 0, keys[0]);
	INIT_DELAYED_WORK(&worker->later, worker_later);
	__INIT_WORK_KEY(&worker->later.work, worker_later, 0, keys[1]);
}

void shim_worker_now(struct shim_worker *worker)
{
	queue_work(worker->queue, &worker->now);
}

/* If it is waiting already, it is not put off. */
void shim_worker_later(struct shim_worker *worker, unsigned long delay)
{
	queue_delayed_work(worker->queue, &worker->later, delay);
}

void shim_worker_stop(struct shim_worker *worker)
{
	/* Either may queue the other. */
	disable_work_sync(&worker->now);
	disable_delayed_work_sync(&worker->later);
}
