"""airlift-swap: controls which colour Nginx serves on the edge host.

Ansible renders the wanted configuration into a directory and calls this agent; the agent alone
decides which colour is active, activates a configuration, and verifies that Nginx serves it.
Standard library and the engine's command line only: it must work when nothing else does.

A configuration is a *tree* with a generation number. `live` is a symbolic link to the active tree,
so that one rename replaces all of it and a reboot finds either the old or the new one:

    /etc/airlift/edge/desired/         what Ansible wants (templates, certificates, upstreams)
    /etc/airlift/edge/trees/000007/    one generation, complete
    /etc/airlift/edge/live             -> trees/000007
    /var/lib/airlift/swap/state.json   active colour, release, generation, since; the standby
    /var/lib/airlift/swap/journal      steps that began and ended, one JSON object per line
    /var/lib/airlift/swap/drained.json   hosts that an operator has taken out of service
    /var/lib/airlift/swap/lease.json   which run may change the site now, and until when
    /run/airlift/                      last results of the watch (replicas.json, edges.json, *.prom)
    /etc/airlift/edge/offer/           what this edge serves, for the other edges of the site

One command is a daemon: `watch` checks each replica every second and keeps requests from those that
are not ready. It marks them in the live tree, without a new generation.

Every command starts from the state that it finds, not from what an earlier run intended.
Answers are one JSON object on standard output. Exit codes: 0 done, 1 refused or failed, 2 usage,
3 another run holds the lease.
"""
