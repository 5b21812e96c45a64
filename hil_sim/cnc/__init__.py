"""A three-axis mill with an OPC UA server: job management, monitoring, alarms and a file system for programs."""
