"""When a layer is skipped and when an exit head answers: the rules, and the settings that steer them."""
