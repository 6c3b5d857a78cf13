"""GraphQL: operations within HTTP requests and WebSockets, for Strawberry and Ariadne."""
