"""The page about a canonical directory: one HTML file that needs nothing beside itself.

    facts ──▶ stacks · lineage · outliers · tensors     what the manifest says, grouped to be seen
                 │         │
             heatmaps   picture   plots · value_counts  the same as shapes and figures
                 └────┬────┘        │
                   render ◀─────────┘                   templates, filled and escaped

The page holds no script and forbids every network access by its own policy. Its bytes depend on
the directory and on the versions of this package and of matplotlib alone.
"""
