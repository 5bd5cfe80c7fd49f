class ExecutorLanes: pass
