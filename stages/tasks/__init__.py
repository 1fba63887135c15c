"""What the models of the line are trained on: each task gives the loop the loss of a batch."""
