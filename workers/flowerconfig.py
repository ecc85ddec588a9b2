"""Flower's settings: `celery -A workers.flower_app flower --conf=workers/flowerconfig.py`.

The only argument of a task is the job's id. Neither it, nor the task's name, nor the text of a failure (workers/run.py)
contains personal data. There are no results and no keyword arguments.
"""

from tasks.private_files import keep_files_private

keep_files_private()  # its history
tasks_columns = "name,args,state,exception,received,runtime,worker,uuid"
