"""Imported by the fork server of `warm_process`: the core's compiled code is in memory then, too.

One thread only, as threads of torch would not live on in a fork.
"""

import torch

from worker.core.warm_up import warm_up

torch.set_num_threads(1)
warm_up()
