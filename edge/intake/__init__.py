"""What the site takes in: signed bytes from anywhere, judged and written down, and who may sign them."""
