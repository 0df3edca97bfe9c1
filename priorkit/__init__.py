"""priorkit: how much can a multimodal model see because of what it already knows?"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
