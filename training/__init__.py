"""What tokenizer and world model both need when Lightning trains them; it knows neither.

Importing this package repairs torchvision where it is broken (see `torchvision_repair`), which
has to happen before anything imports lightning. It imports neither torch nor torchvision.
"""

from training import torchvision_repair

torchvision_repair.install()
