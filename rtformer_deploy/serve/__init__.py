"""The service: pictures over HTTP and WebSocket to label maps, batched for engines that are opened once."""
