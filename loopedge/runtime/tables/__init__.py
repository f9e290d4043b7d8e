"""Tables through a model that was trained on one: the last window of each series in, forecasts or labels out."""
