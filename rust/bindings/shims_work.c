// SPDX-License-Identifier: GPL-2.0
/* A workqueue of this module's own: nothing of it is left when it has stopped. */
#include "shims.h"

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

int shim_worker_start(struct shim_worker *worker, const char *name,
		      void (*run_now)(void *data),
		      void (*run_later)(void *data), void *data)
{
	worker->run_now = run_now;
	worker->run_later = run_later;
	worker->data = data;
	INIT_WORK(&worker->now, worker_now);
	INIT_DELAYED_WORK(&worker->later, worker_later);
	worker->queue = alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
	return worker->queue ? 0 : -ENOMEM;
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
	/* One may start the other, but nobody else starts either any more. */
	cancel_work_sync(&worker->now);
	cancel_delayed_work_sync(&worker->later);
	destroy_workqueue(worker->queue);
}
