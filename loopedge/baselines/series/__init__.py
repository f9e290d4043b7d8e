"""Plain forecasts of a table, fitted on its training windows."""
