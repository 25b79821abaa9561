"""The Ray Serve application: gateway, decoder, encoder and label bank."""
