"""The acceptance table of `predict`: pairs of rasters, each odd in one way, and what is right.

`drawing` draws one piece of ground on any grid, the modules of cases write it in odd ways,
`oracle` says what the map must be from whole arrays, and the test compares.
"""
