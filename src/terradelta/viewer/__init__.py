"""The map viewer: a prediction of any size in the browser, its patches checked one by one."""
