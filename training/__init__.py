"""Training parts that tokenizer and world model share; imports neither.

Importing this package repairs a broken torchvision (see `torchvision_repair`), so it must come
before lightning. It imports neither torch nor torchvision.
"""

from training import torchvision_repair

torchvision_repair.install()
