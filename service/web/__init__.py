"""The page for people at `/`: the same functions as the API, answered in HTML."""
