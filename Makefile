.PHONY: cluster cluster-down

# One real Kubernetes node on this machine, for the tests. Needs root.
cluster:
	scripts/cluster up

cluster-down:
	scripts/cluster down
