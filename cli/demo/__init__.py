"""`trce demo`: the main job of the service, from nothing to a report, over HTTP."""
