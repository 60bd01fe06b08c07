namespace mgpu {}
