"""`loopedge.package`: a folder that an app developer takes: model, loader, test vectors, one page."""
