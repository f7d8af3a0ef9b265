"""The Streamlit UI; it speaks to the API over HTTP only."""
