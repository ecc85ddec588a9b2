"""What Flower's list of tasks shows: `celery -A workers.app flower --conf=workers/flowerconfig.py`.

A task's name says what is done, and its only argument, the job's id, for which event; neither holds personal data. How
an attempt failed is in words that may be shown (workers/run.py). There are no results and no keyword arguments.
"""

tasks_columns = "name,args,state,exception,received,runtime,worker,uuid"
