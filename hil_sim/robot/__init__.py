"""A robot cell with an OPC UA server: Robotics 1.02, safety states, and stations that a part moves through."""
