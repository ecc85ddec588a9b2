"""The columns of Flower's task list: `celery -A workers.app flower --conf=workers/flowerconfig.py`.

The only argument of a task is the job's id. Neither it, nor the task's name, nor the text of a failure (workers/run.py)
contains personal data. There are no results and no keyword arguments.
"""

tasks_columns = "name,args,state,exception,received,runtime,worker,uuid"
