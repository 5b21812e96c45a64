"""What the simulated machines with an OPC UA server share: address space, security, files, alarms, faults, control."""
