"""priorkit: how much can a multimodal model see because of what it already knows?"""
